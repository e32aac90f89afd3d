FROM python:3.13-slim-bookworm AS packages
COPY requirements.txt .
LABEL org.opencontainers.image.title="OCC Storage" org.opencontainers.image.version="0.1.0"
RUN python -m venv /opt/occ && /opt/occ/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

FROM python:3.13-slim-bookworm
# The user has a fixed number, because files on a mounted disk of the host belong to a number and not to a name.
RUN useradd --uid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin occ \
 && install -d -o occ -g occ -m 0700 /data/occ_storage /data/occ_storage/nodes /data/occ_storage/staging
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
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s \
    CMD ["python", "occsite/healthcheck.py"]
CMD ["python", "manage.py", "serve"]
