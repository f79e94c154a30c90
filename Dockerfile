# The image of one machine: LiteFS starts the app, the app starts Litestream. Build it at the root of the repository.
ARG PYTHON=3.11-slim-bookworm

FROM flyio/litefs:0.5.14 AS litefs

FROM python:${PYTHON} AS packages
WORKDIR /srv/litehouse
RUN python -m venv /srv/venv
COPY requirements.lock .
RUN /srv/venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY app app
COPY migrations migrations
RUN /srv/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && /srv/venv/bin/python -m compileall -q app

FROM python:${PYTHON}
# LiteFS mounts with fusermount3, as root; the app itself runs as a user of its own (litefs.yml).
RUN apt-get update \
    && apt-get install --yes --no-install-recommends fuse3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home --shell /usr/sbin/nologin litehouse
COPY --from=litefs /usr/local/bin/litefs /usr/local/bin/litefs
COPY --from=packages /srv /srv
COPY litefs.yml litestream.yml /etc/
ENV PATH=/srv/venv/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8080
ENTRYPOINT ["litefs", "mount"]
