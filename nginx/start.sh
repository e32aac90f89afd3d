#!/bin/sh
# This script fills in the limits of the API, switches TLS on if there is a certificate, and becomes nginx.
set -eu

# A form is larger than its file, so this limit is larger. The API counts the file itself, and its limit is exact.
BODY_LIMIT=$((${MAX_UPLOAD_SIZE:-5368709120} + 1048576))
# The API must reach its time limits first, because its answer says what was too slow.
SILENCE=$((${STALL_TIMEOUT:-30} + 5))
ANSWER=$((${UPLOAD_WAIT:-60} + 60))
export BODY_LIMIT SILENCE ANSWER

envsubst '$BODY_LIMIT $SILENCE $ANSWER' </occ/nginx.conf >/etc/nginx/nginx.conf

rm -f /etc/nginx/tls.conf
if [ -s /etc/nginx/certs/fullchain.pem ] && [ -s /etc/nginx/certs/privkey.pem ]; then
    cp /occ/tls.conf /etc/nginx/tls.conf
elif [ -s /etc/nginx/certs/fullchain.pem ] || [ -s /etc/nginx/certs/privkey.pem ]; then
    echo "certs/ needs both fullchain.pem and privkey.pem: no TLS" >&2
fi

if [ "${AUTH_REQUIRED:-false}" != true ]; then
    echo "AUTH_REQUIRED is not true: whoever reaches nginx can read and delete everything" >&2
fi

exec nginx -g 'daemon off;'
