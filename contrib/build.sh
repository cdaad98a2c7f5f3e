#!/bin/sh
# Builds one file of a release, so that the same source with the same Go gives the same bytes wherever and whenever it is built.
# build.sh NAME VERSION SOURCE OUT     NAME: letterlock-SYSTEM-PROCESSOR
set -eu
name=$1 version=$2 source=$3 out=$4
case $name in
letterlock-*-*)
	system=${name#letterlock-}
	cd "$source"
	# No C, no paths, no revision, no build id; the environment's own Go flags are left out.
	env -u GOEXPERIMENT GOFLAGS= GOWORK=off GOTOOLCHAIN=local CGO_ENABLED=0 GOOS="${system%-*}" GOARCH="${system#*-}" GOAMD64=v1 GOARM64=v8.0 \
		go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X letterlock/cmd.released=$version" -o "$out" .
	;;
*)
	echo "build.sh: a release has no file called $name" >&2
	exit 2
	;;
esac
