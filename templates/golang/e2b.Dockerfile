# Go, with what cgo needs.
FROM debian:stable
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    gcc golang-go libc6-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/* \
 && go version
ENV GOPATH=/home/user/go
ENV PATH="/home/user/go/bin:${PATH}"
