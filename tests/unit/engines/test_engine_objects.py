"""An engine asked for by an object in place of its name."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError

import pytest
from stored_screens import GROUPBY, REFERENCE, counts, screen

import pdex_gpu
from pdex_gpu.errors import ClusterError, OptionError
from pdex_gpu.request.execution import Execution


def test_a_cluster_may_be_named_by_an_object():
    settings = Execution(engine=pdex_gpu.Dask("tcp://host:8786"))
    assert (settings.engine, settings.client) == ("dask", "tcp://host:8786")
    settings = Execution(engine=pdex_gpu.Dask())
    assert (settings.engine, settings.client) == ("dask", None)


def test_a_cluster_is_an_unchanging_value():
    asked = pdex_gpu.Dask("tcp://host:8786")
    assert pickle.loads(pickle.dumps(asked)) == asked
    with pytest.raises(FrozenInstanceError):
        asked.client = None  # type: ignore[misc]


def test_a_client_is_given_once():
    with pytest.raises(OptionError, match=r"engine=Dask\(client='a'\) and client='b' both"):
        pdex_gpu.differential_expression(
            screen(counts()), GROUPBY, reference=REFERENCE, engine=pdex_gpu.Dask("a"), client="b"
        )


@pytest.mark.parametrize("engine", ["dask", pdex_gpu.Dask()], ids=["name", "object"])
def test_an_object_is_refused_where_its_name_is(engine):
    with pytest.raises(OptionError, match=r"n_workers=2 .* engine='dask'"):
        pdex_gpu.differential_expression(screen(counts()), GROUPBY, engine=engine, n_workers=2)
    with pytest.raises(OptionError, match=r"workers= \(--dask-workers\)"):
        pdex_gpu.estimate(screen(counts()), GROUPBY, engine=engine)


def test_the_class_itself_is_no_engine():
    with pytest.raises(OptionError, match="engine="):
        pdex_gpu.differential_expression(screen(counts()), GROUPBY, engine=pdex_gpu.Dask)


def test_a_call_on_a_cluster(monkeypatch: pytest.MonkeyPatch):
    distributed = pytest.importorskip("distributed")
    from dask_clusters import cluster

    monkeypatch.setattr("pdex_gpu.engines.dask.connect._TIMEOUT", 0.5)
    options = {"reference": REFERENCE, "progress": False}
    with pytest.raises(ClusterError, match="No Dask scheduler answers"):
        pdex_gpu.differential_expression(
            screen(counts()), GROUPBY, engine=pdex_gpu.Dask("tcp://127.0.0.1:1"), **options
        )
    with cluster(1) as client:
        assert isinstance(client, distributed.Client)
        found = pdex_gpu.differential_expression(
            screen(counts()), GROUPBY, engine=pdex_gpu.Dask(client), **options
        )
        assert found.provenance["engine"] == "dask"
        here = pdex_gpu.differential_expression(screen(counts()), GROUPBY, **options)
        for name in found.columns:
            assert found[name].tobytes() == here[name].tobytes(), name
