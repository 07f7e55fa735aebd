# Python with pip and a compiler for packages that bring no wheel.
FROM python:3
RUN python --version && pip --version
