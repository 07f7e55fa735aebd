# An HTTP server that answers with what it was sent.
FROM e2bdev/base
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    gunicorn python3-httpbin \
 && rm -rf /var/lib/apt/lists/*
USER user
WORKDIR /home/user
