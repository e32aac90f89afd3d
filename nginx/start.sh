#!/bin/sh
# This script fills in the limits of the API, switches TLS on if there is a certificate, and becomes nginx.
set -eu
certs=/etc/nginx/certs

# A form is larger than its file, so this limit is larger. The API counts the file itself, and its limit is exact.
BODY_LIMIT=$((${MAX_UPLOAD_SIZE:-5368709120} + 1048576))
# A client of S3 may send a body in chunks, each with a signature.
S3_BODY_LIMIT=$((BODY_LIMIT + BODY_LIMIT / 16))
# The API must reach its time limits first, because its answer says what was too slow.
SILENCE=$((${STALL_TIMEOUT:-30} + 5))
ANSWER=$((${UPLOAD_WAIT:-60} + 60))
HSTS_SECONDS=$((${HSTS_SECONDS:-0}))
export API BODY_LIMIT S3_BODY_LIMIT SILENCE ANSWER HSTS_SECONDS

envsubst '$API $BODY_LIMIT $S3_BODY_LIMIT $SILENCE $ANSWER $HSTS_SECONDS' </occ/nginx.conf >/tmp/nginx.conf
cp /occ/protection.conf /tmp/protection.conf

rm -f /tmp/tls.conf /tmp/s3_tls.conf
if [ -e $certs/fullchain.pem ] && [ -e $certs/privkey.pem ]; then
    for file in $certs/fullchain.pem $certs/privkey.pem; do
        if [ ! -r $file ]; then
            echo "$file is closed to the user $(id -u): give it to that user, or set NGINX_USER to the number of its owner" >&2
            exit 1
        fi
    done
    cp /occ/tls.conf /tmp/tls.conf
    sed 's/listen 8443/listen 8444/' /occ/tls.conf >/tmp/s3_tls.conf
elif [ -e $certs/fullchain.pem ] || [ -e $certs/privkey.pem ]; then
    echo "certs/ needs both fullchain.pem and privkey.pem: no TLS" >&2
fi

case "${ADDRESS:-} ${AUTH_REQUIRED:-false}" in
    127.* | ::1\ * | localhost\ * | *\ true) ;;
    *) echo "AUTH_REQUIRED is not true: whoever reaches $ADDRESS can read and delete everything" >&2 ;;
esac

exec nginx -c /tmp/nginx.conf -g 'daemon off;'
