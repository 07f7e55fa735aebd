# MCP servers behind one address: what the SDKs' `mcp` option starts. Servers are npm and PyPI
# packages, which `mcp-gateway` fetches when it first starts them, or `mcp-gateway pull` before.
FROM node:lts
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends pipx \
 && rm -rf /var/lib/apt/lists/*
RUN ln -s /.warren/bin/mcp-gateway /usr/local/bin/mcp-gateway
ENV PIPX_HOME=/opt/pipx
ENV PIPX_BIN_DIR=/usr/local/bin
