"""Segments a folder of images, or a prefix of an object store, with Ray Data.

    pip install zeg "ray[data]"
    python ray_segment.py images out --model mini --classes "red, blue, green" --workers 2

One actor a core holds the model. Every finished image has its files in the output folder: if an actor is killed, Ray
starts another one, which reads finished images of its batch back; if the whole job is killed, the same command goes on.
The results are those of one process, to the byte. At the end there are out/parquet with one row an image, and
out/coco.json.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet
import ray

from zeg.batch import FileSegmenter, coco_of_rows, list_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="folder or URI, such as s3://bucket/images")
    parser.add_argument("output", type=Path, help="folder that all workers see")
    parser.add_argument("--model", required=True)
    parser.add_argument("--classes", required=True)
    parser.add_argument("--text", help="table of class embeddings, for weights without a text tower")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4, help="images that an actor takes at a time")
    arguments = parser.parse_args()

    # The actors must leave a core for the tasks that read names and write rows. On a cluster, its nodes say what they have.
    cores = None if "RAY_ADDRESS" in os.environ else max(os.cpu_count() or 1, arguments.workers + 1)
    ray.init(ignore_reinit_error=True, log_to_driver=False, num_cpus=cores)
    names = ray.data.from_items([{"name": name} for name in list_images(arguments.images)])
    rows = names.repartition(max(1, names.count() // arguments.batch)).map_batches(
        FileSegmenter,
        fn_constructor_args=(arguments.images, str(arguments.output.absolute() / "images")),
        fn_constructor_kwargs={
            "model": arguments.model,
            "classes": arguments.classes,
            "load": {"text": arguments.text},
        },
        batch_size=arguments.batch,
        compute=ray.data.ActorPoolStrategy(size=arguments.workers),
        num_cpus=1,
    )
    parquet = arguments.output.absolute() / "parquet"
    shutil.rmtree(parquet, ignore_errors=True)  # of an earlier job; its finished images are read back
    rows.write_parquet(str(parquet))

    table = pyarrow.parquet.read_table(parquet, columns=["name", "coco", "error", "reused"]).to_pylist()
    (arguments.output / "coco.json").write_text(json.dumps(coco_of_rows(table)))
    failed = [row for row in table if row["error"]]
    for row in failed:
        print(f"{row['name']}: {row['error']}")
    print(f"{len(table)} images, {sum(row['reused'] for row in table)} of them finished before, {len(failed)} failed")


if __name__ == "__main__":
    main()
