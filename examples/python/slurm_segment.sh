#!/usr/bin/env bash
# Segments a folder of images with a Slurm array of four jobs. Submit it, and then the job that puts the parts together:
#
#   job=$(sbatch --parsable --array=1-4 slurm_segment.sh images out --model mini --classes "red, blue, green")
#   sbatch --dependency=afterok:"$job" --wrap "zeg segment merge out/part-* -o out/whole"
#
# A part that was killed and is started again keeps its finished images: submit both once more, or, of the array, the
# killed part alone (PARTS=4 sbatch --array=2 …). The merged results are those of one process, to the byte.
#SBATCH --job-name=zeg-segment
#SBATCH --cpus-per-task=8
#SBATCH --requeue
set -euo pipefail
images=$1
output=$2
shift 2
# The range starts at 1 and has no gap; who submits some parts again says in PARTS how many there are.
part=$SLURM_ARRAY_TASK_ID
parts=${PARTS:-$SLURM_ARRAY_TASK_COUNT}
exec zeg segment "$images" --shard "$part/$parts" -o "$output/part-$part" --resume --write labels,coco \
    --threads "${SLURM_CPUS_PER_TASK:-1}" "$@"
