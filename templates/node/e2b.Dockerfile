# Node.js, npm and yarn with a compiler for native modules.
FROM node:lts
RUN node --version && npm --version
