# A plain shell.
FROM ubuntu:24.04
RUN bash --version && git --version && curl --version
