"""Segments a folder of images, or a prefix of an object store, with Spark.

    pip install zeg pyspark pandas pyarrow
    spark-submit spark_segment.py images out --model mini --classes "red, blue, green" --partitions 8

Every Python worker loads the model once for each of its partitions. Every finished image has its files in the output
folder: if a worker is killed, Spark runs its partition again, which reads finished images back; if the whole job is
killed, the same command goes on. The results are those of one process, to the byte. At the end there are out/parquet
with one row an image, and out/coco.json.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas
from pyspark.sql import SparkSession

from zeg.batch import COLUMNS, FileSegmenter, coco_of_rows, list_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="folder or URI, such as s3://bucket/images")
    parser.add_argument("output", type=Path, help="folder that all workers see")
    parser.add_argument("--model", required=True)
    parser.add_argument("--classes", required=True)
    parser.add_argument("--text", help="table of class embeddings, for weights without a text tower")
    parser.add_argument("--partitions", type=int, default=8, help="pieces of work; several for each core")
    parser.add_argument("--master", help="such as local[2,4]: two cores, and four tries for a piece of work")
    arguments = parser.parse_args()

    builder = SparkSession.builder.appName("zeg segment")
    if arguments.master:
        builder = builder.master(arguments.master)
    # A batch is as many images as a worker returns at a time.
    spark = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "8").getOrCreate()
    work = FileSegmenter(
        arguments.images if "://" in arguments.images else os.path.abspath(arguments.images),
        str(arguments.output.absolute() / "images"),
        model=arguments.model,
        classes=arguments.classes,
        load={"text": arguments.text},
    )

    def segment(frames: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        for frame in frames:
            yield pandas.DataFrame(work(frame))

    names = spark.createDataFrame([(name,) for name in list_images(arguments.images)], "name string")
    schema = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    parquet = str(arguments.output.absolute() / "parquet")
    names.repartition(arguments.partitions, "name").mapInPandas(segment, schema).write.mode("overwrite").parquet(parquet)

    table = [row.asDict() for row in spark.read.parquet(parquet).select("name", "coco", "error", "reused").collect()]
    (arguments.output / "coco.json").write_text(json.dumps(coco_of_rows(table)))
    failed = [row for row in table if row["error"]]
    for row in failed:
        print(f"{row['name']}: {row['error']}")
    print(f"{len(table)} images, {sum(row['reused'] for row in table)} of them finished before, {len(failed)} failed")
    spark.stop()


if __name__ == "__main__":
    main()
