#!/bin/sh
# This script makes the database at the first start, sets the password, and becomes PostgreSQL. The entrypoint of the
# image would begin as root. This script runs as the user postgres from its first line on.
set -eu
password=$(cat /passwords/password)

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$(dirname "$PGDATA")"
    rm -rf "$PGDATA.new"  # A first start that was interrupted may have left this folder.
    initdb --pgdata="$PGDATA.new" --username=occ --pwfile=/passwords/password --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8
    echo "host all all all scram-sha-256" >>"$PGDATA.new/pg_hba.conf"
    echo "CREATE DATABASE occ" | postgres --single -D "$PGDATA.new" postgres >/dev/null
    mv "$PGDATA.new" "$PGDATA"
fi

# The file may have another password than at the last start.
echo "ALTER ROLE occ PASSWORD '$password'" | postgres --single -D "$PGDATA" postgres >/dev/null
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
