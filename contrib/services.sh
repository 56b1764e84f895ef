#!/bin/sh
# Fetches the servers that the tests drive (nginx, HAProxy, Caddy) into ./.services, from this
# machine's own package lists. Nothing is installed, nothing outside ./.services changes; a server
# that cannot be had is skipped by name, here and in the tests.
set -eu
cd "$(dirname "$0")/.."
place=$PWD/.services

if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "no apt on this machine: tests use the servers that are installed" >&2
    exit 0
fi

rm -rf "$place.new"
mkdir -p "$place.new/packages"
cd "$place.new/packages"
for package in nginx haproxy caddy \
    liblua5.3-0 libopentracing-c-wrapper0 libopentracing1; do
    apt-get download -qq "$package" 2>/dev/null || echo "cannot fetch $package" >&2
done
for file in *.deb; do
    test -e "$file" && dpkg-deb -x "$file" "$place.new"
done
rm -rf "$place" "$place.new/packages"
mv "$place.new" "$place"
