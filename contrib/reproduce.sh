#!/bin/sh
# Builds the files of a release twice and compares them: from two copies of the source in two folders, with other times on every file,
# and each with a build cache of its own (CACHE=shared: with the one that is there; quicker, and it shows less). Prints each hash; ends
# with 1 where two builds differ.
# reproduce.sh VERSION NAME...         in the root of the tree
set -eu
version=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for copy in "$work/one" "$work/another/folder/of/another/length"; do
	mkdir -p "$copy"
	tar --exclude=./.git --exclude=./bin --exclude=./dist --exclude=node_modules -cf - . | tar -xf - -C "$copy"
done
find "$copy" -exec touch -h -d '2001-02-03 04:05:06' {} +
build() { # COPY TIMEZONE NAME
	test "${CACHE:-}" = shared || export GOCACHE="$1.cache"
	TZ=$2 sh "$1/contrib/build.sh" "$3" "$version" "$1" "$1.$3"
	sha256sum <"$1.$3" | cut -d' ' -f1
}
for name in "$@"; do
	one=$(build "$work/one" UTC "$name")
	two=$(build "$copy" Asia/Kathmandu "$name")
	if test "$one" != "$two"; then
		echo "$name: two builds of one source differ: $one, $two" >&2
		exit 1
	fi
	echo "$one  $name"
done
