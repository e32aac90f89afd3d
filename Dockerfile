FROM python:3.13-slim-bookworm AS packages
COPY requirements.txt .
RUN python -m venv /opt/occ \
 && /opt/occ/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r requirements.txt

FROM python:3.13-slim-bookworm
# The user has a fixed number, because files on a mounted disk of the host belong to a number and not to a name. Docker
# gives an empty volume to the owner of the folder that it is mounted on.
RUN useradd --uid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin occ \
 && install -d -o occ -g occ -m 0700 /data/occ_storage /data/occ_storage/nodes /data/occ_storage/staging /data/redis \
 && install -d -o occ -g occ -m 0755 /passwords /passwords/postgres /passwords/redis
COPY --from=packages /opt/occ /opt/occ
WORKDIR /app
COPY manage.py ./
COPY sketches sketches
COPY storage storage
COPY occsite occsite
ENV PATH=/opt/occ/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=1 \
    HOST=0.0.0.0 \
    STORAGE_DIR=/data/occ_storage \
    LOG_TO=stdout
RUN python -m compileall -q .
USER occ
VOLUME /data/occ_storage
EXPOSE 5000 5005
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s \
    CMD ["python", "occsite/healthcheck.py"]
CMD ["python", "manage.py", "serve"]
# The labels come last: another revision does not make the layers above again.
ARG REVISION="" CREATED="" SOURCE=""
LABEL org.opencontainers.image.title="OCC Storage" \
      org.opencontainers.image.description="A content-addressed, replicated file store that tracks where chunks lie in LCRS sketches" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.base.name="python:3.13-slim-bookworm" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
