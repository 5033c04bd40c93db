# shellcheck shell=bash
# An S3 server over a folder: versitygw. Measured against MinIO: half the CPU time to build, a sixth of the
# memory, and no stray AccessDenied when puts and deletes race under one prefix (MinIO: 1 in 900). Its
# conditional puts are decided under a lock. As it is a folder, `a` and `a/b` can't both be objects.

VERSITYGW_VERSION=v1.8.0
VERSITYGW="$CACHE/versitygw-$VERSITYGW_VERSION"
BUCKET=tidemill-test
ACCESS_KEY=tidemill
SECRET_KEY=tidemill-secret

install() {
  [ -x "$VERSITYGW" ] && return
  have go || apt_install golang-go || true
  have go || unavailable "needs Go to build versitygw, and it could not be installed"
  local work="$CACHE/build.$$"
  mkdir -p "$work"
  say "s3: building versitygw $VERSITYGW_VERSION with Go (once, a minute or two)"
  if ! GOFLAGS='' CGO_ENABLED=0 GOBIN="$work" go install -trimpath -ldflags '-s -w' \
    "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW_VERSION" </dev/null >"$DIR/failed.log" 2>&1; then
    rm -rf "$work"
    unavailable "$(go version) could not build versitygw $VERSITYGW_VERSION; see $DIR/failed.log"
  fi
  mv "$work/versitygw" "$VERSITYGW"
  rm -rf "$work"
}

# A folder is a bucket. Metadata goes into files beside it: /tmp may know no extended attributes.
start() {
  mkdir -p "$DATA/buckets/$BUCKET" "$DATA/metadata"
  ROOT_ACCESS_KEY="$ACCESS_KEY" ROOT_SECRET_KEY="$SECRET_KEY" spawn "$VERSITYGW" \
    --port "127.0.0.1:$PORT" --region us-east-1 --keep-alive --quiet posix --sidecar "$DATA/metadata" "$DATA/buckets"
}

ready() { port_answers "$PORT"; }

# The AWS_* ones are what object_store and every S3 client read.
exports() {
  cat <<EOF
TIDEMILL_TEST_S3=http://127.0.0.1:$PORT
TIDEMILL_TEST_S3_BUCKET=$BUCKET
AWS_ENDPOINT_URL=http://127.0.0.1:$PORT
AWS_ALLOW_HTTP=true
AWS_REGION=us-east-1
AWS_ACCESS_KEY_ID=$ACCESS_KEY
AWS_SECRET_ACCESS_KEY=$SECRET_KEY
EOF
}
