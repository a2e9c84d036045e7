#!/usr/bin/env bash
# Segments a folder of images with GNU parallel: four processes, each tried three times, and the merged results.
#
#   ./parallel_segment.sh images out --model mini --classes "red, blue, green"
#
# On several machines, add --sshlogin or --slf to parallel, with folders that all of them see. A part that was killed and
# is started again keeps its finished images. The merged results are those of one process, to the byte.
set -euo pipefail
images=$1
output=$2
shift 2
parts=${PARTS:-4}
seq "$parts" | parallel --jobs "${JOBS:-100%}" --retries 3 --quote \
    zeg segment "$images" --shard "{}/$parts" -o "$output/part-{}" --resume --write labels,coco --threads 1 "$@"
exec zeg segment merge "$output"/part-* -o "$output/whole" --overwrite
