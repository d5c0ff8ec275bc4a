#!/bin/sh
# From a built binary to hits on a screen: set up, serve on a free loopback port, ingest the sample texts and this
# project's own documentation, ask, stop. `make quickstart` builds the binary and calls this.
#
#   clients/quickstart.sh [WORK]
#
# WORK: folder of the database and the server's log (default target/quickstart); nobody else's data is touched.
# DISTILFACE: the binary (default target/release/distilface). PYTHON: whose pip downloads.
set -eu
cd "$(dirname -- "$0")/.."
work=${1:-target/quickstart}
bin=${DISTILFACE:-target/release/distilface}
mkdir -p "$work"

# Neither the user's server nor his settings shall have a part in this.
unset DISTILFACE_URL DISTILFACE_CONFIG
XDG_CONFIG_HOME=$(cd "$work" && pwd)/no-config
export XDG_CONFIG_HOME

say() { printf '\n%s\n' "$*"; }

say "== set up: ONNX Runtime and the default model"
"$bin" setup ${PYTHON:+--python "$PYTHON"}

say "== serve"
server=
stop() {
  if [ -n "$server" ] && kill -TERM "$server" 2>/dev/null; then wait "$server" || true; fi
  server=
}
trap stop EXIT
trap 'exit 130' INT TERM
: > "$work/address"
"$bin" serve --json --data "$work/db" --listen 127.0.0.1:0 --metrics-listen off \
  > "$work/address" 2> "$work/server.log" &
server=$!
url=
tries=0
while [ -z "$url" ]; do
  url=$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$work/address")
  if [ -z "$url" ] && { ! kill -0 "$server" 2>/dev/null || [ "$tries" -ge 1200 ]; }; then
    echo "the server did not start; its log ($work/server.log) ends with:" >&2
    tail -n 20 "$work/server.log" >&2
    exit 1
  fi
  tries=$((tries + 1))
  [ -n "$url" ] || sleep 0.1
done
DISTILFACE_URL=$url
export DISTILFACE_URL
# The first call that is answered proves that it is ready.
"$bin" collection list --quiet > /dev/null
echo "listening on $url, data in $work/db"

say "== ingest: the sample texts and this project's documentation"
"$bin" ingest -c sample --type published=datetime models/sample/documents.jsonl
# In a folder of their own they keep their paths, which become their ids.
rm -rf "$work/docs"
find README.md .github clients docker models src -name '*.md' \
  -exec sh -c 'mkdir -p "$0/$(dirname -- "$1")" && cp "$1" "$0/$1"' "$work/docs" {} \;
"$bin" ingest -c docs "$work/docs"

ask() {
  collection=$1 question=$2
  shift 2
  say "== $question   $*"
  "$bin" search -c "$collection" -k 3 --lines 3 "$question" "$@"
}
ask sample "What will become of our own star when its fuel is used up?"
ask sample "my steak never gets a nice crust"
ask sample "how do plants turn light into food" --payload
ask sample "inventions that changed how people live" --filter 'year >= 1800 and year < 1900' --payload
ask sample "keeping a wound from getting infected" --filter 'difficulty = "easy"' --explain
ask docs "what happens to a write when the power goes out"

say "== stop"
stop
trap - EXIT
echo "stopped cleanly; the server's log is $work/server.log"

cat <<EOF

Now with your own text:

  $bin serve &
  $bin ingest ~/notes                  # .txt, .md, .html, .jsonl, .csv
  $bin search "what I am looking for"

or without a server, in one folder:

  $bin ingest ~/notes --data ~/notes.db
  $bin search "what I am looking for" --data ~/notes.db

  $bin doctor                          # what is installed and what is chosen
  $bin --help
EOF
