#!/usr/bin/env bash
# Makes a base image of Debian with Python where no image registry can be reached. Needs root and debootstrap.
#   SDPO_BASE           name of the image   (default: sdpo-base:bookworm)
#   SDPO_DEBIAN_MIRROR  where packages are  (default: http://deb.debian.org/debian)
set -euo pipefail

base=${SDPO_BASE:-sdpo-base:bookworm}
mirror=${SDPO_DEBIAN_MIRROR:-http://deb.debian.org/debian}
die() { printf 'make_base: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "debootstrap needs root; run this script as root, or give build.sh a base image (SDPO_BASE)"
command -v debootstrap >/dev/null || die "debootstrap is missing; for example: apt-get install debootstrap"
folder=$(mktemp -d)
log=$(mktemp)
trap 'rm -rf --one-file-system "$folder" "$log"' EXIT
printf 'make_base: %s from %s (about a minute)\n' "$base" "$mirror"
debootstrap --variant=minbase --include=python3 bookworm "$folder" "$mirror" >"$log" 2>&1 || {
    tail -n 5 "$log" >&2
    die "debootstrap failed"
}
rm -rf "$folder"/var/cache/apt/* "$folder"/var/lib/apt/lists/* "$folder"/usr/share/doc/* "$folder"/usr/share/man/*
tar -C "$folder" -c . | docker import - "$base" >/dev/null
