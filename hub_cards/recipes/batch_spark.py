"""Classify a table with Spark; a fitted task is pickled, broadcast, and unpickled once for each partition.

spark-submit batch_spark.py --task me/tart-sms-spam --input messages.csv --output labeled
"""

import argparse
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from transformers import pipeline

import transformers_tart  # noqa: F401 (registers the pipeline)


def classify_table(spark: SparkSession, table: DataFrame, classify: Any) -> DataFrame:
    """Add the columns `label` and `score` to a table with the column `text`."""
    sent = spark.sparkContext.broadcast(pickle.dumps(classify))

    def label(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        own = pickle.loads(sent.value)
        for frame in frames:
            answers = own(frame["text"].tolist(), batch_size=64)
            yield frame.assign(**{name: [each[name] for each in answers] for name in ("label", "score")})

    fields = [f"`{field.name}` {field.dataType.simpleString()}" for field in table.schema.fields]
    return table.mapInPandas(label, ", ".join([*fields, "label string", "score double"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--task", "--input", "--output"):
        parser.add_argument(name, required=True)
    args = parser.parse_args()
    session = SparkSession.builder.getOrCreate()
    rows = session.read.csv(args.input, header=True, multiLine=True, escape='"')
    task = pipeline("tart-classification", model=args.task)
    classify_table(session, rows, task).write.parquet(args.output)
