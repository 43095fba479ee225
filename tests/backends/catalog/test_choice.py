"""What fits which machine. The machines are made up; only the last section looks at the real one."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.catalog.cards import Artefact, Card, Catalog
from backends.catalog.choice import (
    LARGEST_UNASKED,
    choose,
    fit,
    free_bytes,
    looking_bytes,
    ranked,
    suits,
    visual_tokens,
)
from backends.core.errors import OutOfMemory, SourceUnreachable, WeightsError
from backends.machine import machine as looking
from backends.machine.machine import GIB, NO_LIMITS, Gpu, Machine
from tests.drawn import seeing

CATALOG = Catalog.read()
TEXT_TASKS = ("chat", "coding", "math", "multilingual")
ENGINES = ("llama_cpp", "transformers")

cards = st.sampled_from(CATALOG.cards)
engines = st.sampled_from(ENGINES)
sizes = st.integers(min_value=0, max_value=256 * GIB)


def machine(free: int, total: int | None = None, cores: int = 2, *gpus: Gpu) -> Machine:
    return Machine(cores, cores, free if total is None else total, free, gpus)


def by_wheels(source: Artefact) -> bool:
    """A machine without a model hub."""
    return source.wheels is not None


def anything(source: Artefact) -> bool:
    return True


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    total, free, gpu = draw(sizes), draw(sizes), draw(sizes)
    gpus = draw(st.sampled_from([(), (Gpu("a card", gpu, gpu),), (Gpu("Apple", total, free, unified=True),)]))
    return Machine(draw(st.integers(1, 256)), 1, total, min(total, free), gpus)


# --- fit -----------------------------------------------------------------------------------------


@given(cards, engines, machines())
def test_what_fits_is_within_what_was_asked_for(card: Card, engine: str, here: Machine) -> None:
    result = fit(card, engine, here)
    assert 1 <= result.slots <= 8
    assert min(2048, card.context) <= result.context <= min(8192, card.context)
    assert result.need_bytes >= card.weight_bytes(engine) + result.context * result.slots * card.kv_bytes_per_token


@given(cards, engines, machines(), sizes)
def test_more_memory_never_makes_a_model_stop_fitting(card: Card, engine: str, here: Machine, more: int) -> None:
    gpus = tuple(Gpu(gpu.name, gpu.total + more, gpu.free + more, gpu.unified) for gpu in here.gpus)
    larger = Machine(here.cores, 1, here.ram_total + more, here.ram_available + more, gpus)
    before, after = fit(card, engine, here), fit(card, engine, larger)
    assert after.fits >= before.fits
    assert after.slots >= before.slots
    assert after.slots * after.context >= before.slots * before.context


@given(cards, machines())
def test_a_gguf_that_fits_leaves_a_fifth_and_a_reserve_of_the_memory_alone(card: Card, here: Machine) -> None:
    result = fit(card, "llama_cpp", here)
    assert result.fits == (result.need_bytes <= min(int(here.ram_total * 0.8), here.ram_available - GIB))


def test_context_shrinks_before_slots_and_slots_before_giving_up() -> None:
    card = CATALOG.get("qwen3-4b")
    seen = [fit(card, "llama_cpp", machine(size * GIB // 8, 64 * GIB)) for size in range(128, 0, -1)]
    shapes = [(one.slots, one.context) for one in seen if one.fits]
    assert shapes[0] == (4, 8192)
    assert any(slots == 4 and context < 8192 for slots, context in shapes)
    assert all(slots == 4 or context < 2 * 2048 for slots, context in shapes if slots > 1)
    assert 1 in {slots for slots, _ in shapes}
    assert not seen[-1].fits


@pytest.mark.parametrize(("cores", "slots"), [(1, 2), (2, 4), (3, 6), (4, 8), (64, 8)])
def test_twice_as_many_slots_as_cores_between_two_and_eight(cores: int, slots: int) -> None:
    assert fit(CATALOG.cards[0], "llama_cpp", machine(64 * GIB, None, cores)).slots == slots


@pytest.mark.parametrize(
    ("free_gib", "total_gib", "budget_gib"),
    [(4, 24, 3), (10, 10, 8), (0.5, 24, 0)],
    ids=["less the reserve", "a fifth stays free", "never below nothing"],
)
def test_the_budget_is_four_fifths_of_all_or_what_is_free_less_a_reserve(
    free_gib: float, total_gib: int, budget_gib: int
) -> None:
    reason = fit(CATALOG.cards[0], "llama_cpp", machine(int(free_gib * GIB), total_gib * GIB)).reason
    assert f"this machine has {budget_gib * GIB / 1e9:.1f} GB free" in reason


def test_the_reason_is_a_sentence_with_both_numbers() -> None:
    result = fit(CATALOG.get("qwen3-8b"), "llama_cpp", machine(3 * GIB))
    assert not result.fits
    assert result.reason == "needs about 5.7 GB, this machine has 2.1 GB free"


def test_a_model_that_fits_but_would_be_slow_says_so_as_an_estimate() -> None:
    here = machine(128 * GIB)
    slow = fit(CATALOG.get("qwen3-14b"), "transformers", here)
    assert slow.fits
    assert slow.slow
    assert "by estimate 0.8 tokens a second" in slow.reason
    assert not fit(CATALOG.get("qwen3-8b"), "llama_cpp", here).slow


def test_a_mixture_of_experts_is_as_fast_as_its_active_part() -> None:
    here = machine(256 * GIB)
    dense, sparse = (fit(CATALOG.get(name), "transformers", here) for name in ("qwen3-32b", "qwen3-30b-a3b"))
    assert dense.tokens_per_s is not None
    assert sparse.tokens_per_s is not None
    assert sparse.tokens_per_s > 5 * dense.tokens_per_s


def test_transformers_uses_the_graphics_card_and_the_prebuilt_llama_cpp_does_not() -> None:
    here = machine(4 * GIB, 4 * GIB, 8, Gpu("small", 8 * GIB, 8 * GIB), Gpu("large", 80 * GIB, 80 * GIB))
    card = CATALOG.get("qwen3-8b")
    on_gpu = fit(card, "transformers", here)
    assert on_gpu.fits
    assert on_gpu.on_gpu
    assert on_gpu.slots == 4
    assert on_gpu.tokens_per_s is None
    assert "the graphics card has" in on_gpu.reason
    assert not fit(card, "llama_cpp", here).fits
    assert not fit(card, "llama_cpp", here).on_gpu


# --- looking -------------------------------------------------------------------------------------


@given(cards, st.integers(0, 20_000), st.integers(1, 1000))
def test_a_larger_picture_never_takes_less(card: Card, visual_tokens: int, more: int) -> None:
    less = looking_bytes(card, visual_tokens)
    assert 0 <= less < looking_bytes(card, visual_tokens + more)
    assert less >= visual_tokens * card.kv_bytes_per_token


@given(cards, engines, machines())
def test_a_picture_costs_what_the_card_says_and_less_on_a_processor(card: Card, engine: str, here: Machine) -> None:
    tokens = visual_tokens(card, engine, here)
    if card.eyes is None:
        assert tokens == 0
        return
    assert card.eyes.fewest <= tokens <= card.eyes.default
    usable = [gpu for gpu in here.gpus if gpu.unified or engine == "transformers"]
    assert tokens == card.eyes.default or (not usable and tokens <= max(256, card.eyes.fewest))


@given(machines())
def test_a_picture_lies_where_the_engines_models_lie(here: Machine) -> None:
    dedicated = [gpu.free for gpu in here.gpus if not gpu.unified]
    assert free_bytes("llama_cpp", here) == here.ram_available
    assert free_bytes("transformers", here) == (dedicated[0] if dedicated else here.ram_available)


# --- choose --------------------------------------------------------------------------------------


@pytest.mark.parametrize("obtainable", [anything, by_wheels])
@pytest.mark.parametrize("task", TEXT_TASKS)
def test_two_cores_and_24_gb_take_the_larger_starter(task: str, obtainable: Any) -> None:
    here = machine(20 * GIB, 24 * GIB)
    assert choose(CATALOG, here, task, "llama_cpp", obtainable).id == "qwen2.5-coder-1.5b-instruct"


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_two_gb_free_take_the_smaller_starter(task: str) -> None:
    here = machine(2_000_000_000, 24 * GIB)
    assert choose(CATALOG, here, task, "llama_cpp", by_wheels).id == "qwen2.5-coder-0.5b-instruct"


@pytest.mark.parametrize("engine", ENGINES)
def test_without_a_hub_both_engines_still_have_a_model(engine: str) -> None:
    assert choose(CATALOG, machine(20 * GIB), "chat", engine, by_wheels).id == "qwen2.5-coder-1.5b-instruct"


def test_a_task_that_no_card_is_good_at_falls_back_to_any() -> None:
    assert choose(CATALOG, machine(20 * GIB), "a task to come", "llama_cpp", anything) == CATALOG.cards[0]


def test_pictures_are_never_given_to_a_model_that_reads_only_text() -> None:
    assert "image" in choose(CATALOG, machine(20 * GIB), "image", "llama_cpp", anything).modalities
    with pytest.raises(SourceUnreachable):
        choose(CATALOG, machine(20 * GIB), "image", "llama_cpp", by_wheels)


def own_or_by_wheels(source: Artefact) -> bool:
    """A machine without a model hub, with all that comes with the playground."""
    return bool(source.folder) or by_wheels(source)


@given(machines(), engines, st.sampled_from(TEXT_TASKS), st.sampled_from([anything, by_wheels, own_or_by_wheels]))
def test_a_demo_is_never_chosen_for_what_it_is_not_good_at(
    here: Machine, engine: str, task: str, obtainable: Any
) -> None:
    rows = ranked(CATALOG, here, task, engine, obtainable)
    assert all(reason == "is a demo for pictures only" for card, _, reason in rows if card.demo)
    with contextlib.suppress(WeightsError, OutOfMemory):
        assert not choose(CATALOG, here, task, engine, obtainable).demo


@given(machines(), engines, st.sampled_from([anything, own_or_by_wheels]))
def test_a_demo_is_the_choice_for_pictures_exactly_where_nothing_else_can_be_had(
    here: Machine, engine: str, obtainable: Any
) -> None:
    usable = [card for card, _, reason in ranked(CATALOG, here, "image", engine, obtainable) if not reason]
    if usable:
        chosen = choose(CATALOG, here, "image", engine, obtainable)
        assert chosen in usable
        assert chosen.demo == all(card.demo for card in usable)


@pytest.mark.parametrize("engine", ENGINES)
def test_without_a_hub_there_is_still_something_that_sees(engine: str) -> None:
    assert choose(CATALOG, machine(20 * GIB), "image", engine, own_or_by_wheels).demo


@pytest.mark.parametrize(
    ("changes", "tasks"),
    [
        ({}, {"chat", "math"}),
        ({"demo": True, "good_at": ("image",)}, {"image"}),
        ({"demo": True, "good_at": ("math",)}, {"math"}),
        ({"demo": True}, set()),
    ],
)
def test_what_a_model_suits(card: Card, changes: dict[str, Any], tasks: set[str]) -> None:
    everything = ("chat", "math", "image")
    assert {task for task in everything if suits(card.model_copy(update=changes), task)} == tasks
    if not changes:
        assert all(suits(seeing(card), task) for task in everything)


def test_too_little_memory_names_the_smallest_model_and_both_numbers() -> None:
    with pytest.raises(OutOfMemory, match=r"Qwen2\.5-Coder 0\.5B Instruct needs about 0\.9 GB, .* has 0\.0 GB free"):
        choose(CATALOG, machine(GIB), "chat", "llama_cpp", anything)


def test_an_engine_without_files_is_told_plainly() -> None:
    with pytest.raises(WeightsError, match="onnx_genai"):
        choose(CATALOG, machine(20 * GIB), "chat", "onnx_genai", anything)


def test_the_network_is_asked_only_until_a_model_is_found() -> None:
    asked: list[Artefact] = []

    def ask(source: Artefact) -> bool:
        asked.append(source)
        return True

    choose(CATALOG, machine(20 * GIB), "chat", "llama_cpp", ask)
    assert len(asked) == 1


@given(machines(), engines, st.sampled_from((*TEXT_TASKS, "image")), st.sampled_from([anything, by_wheels]))
def test_the_picker_shows_every_card_usable_ones_first_and_begins_with_the_choice(
    here: Machine, engine: str, task: str, obtainable: Any
) -> None:
    rows = ranked(CATALOG, here, task, engine, obtainable)
    assert {card.id for card, _, _ in rows} == {card.id for card in CATALOG}
    refused = [reason != "" for _, _, reason in rows]
    assert refused == sorted(refused)
    assert all(result.fits for _, result, reason in rows if reason == "")
    if all(refused):
        with pytest.raises((WeightsError, OutOfMemory)):
            choose(CATALOG, here, task, engine, obtainable)
    else:
        chosen, (first, result, _) = choose(CATALOG, here, task, engine, obtainable), rows[0]
        assert chosen in [card for card, _, reason in rows if not reason]
        assert chosen == first or result.on_gpu
        assert chosen == first or first.parameters < chosen.parameters <= LARGEST_UNASKED


def test_the_picker_says_why_not() -> None:
    rows = ranked(CATALOG, machine(6 * GIB), "chat", "llama_cpp", by_wheels)
    reasons = {card.id: reason for card, _, reason in rows}
    assert reasons["qwen2.5-coder-1.5b-instruct"] == ""
    assert reasons["qwen3-0.6b"] == "cannot be fetched: the hub cannot be reached"
    assert reasons["qwen3-8b"].startswith("needs about")
    assert reasons["qwen3-32b"] == "has no files for the engine llama_cpp"


# --- detect --------------------------------------------------------------------------------------


def test_detect_is_plausible_and_starts_no_program_without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is what would take time: it is asked whenever a page is opened."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: pytest.fail("a program is started"))
    here = Machine.detect({})
    assert 1 <= here.physical_cores <= here.cores <= (os.cpu_count() or 1)
    assert 0 <= here.ram_available <= here.ram_total <= psutil.virtual_memory().total
    assert not here.on_space


def test_detect_imports_no_heavy_library() -> None:
    code = "import sys, backends.machine.machine as m; m.Machine.detect(); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_detect_never_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no")

    for module, name in [(psutil, "virtual_memory"), (psutil, "cpu_count"), (os, "sched_getaffinity")]:
        monkeypatch.setattr(module, name, refuse, raising=False)
    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/nvidia-smi")
    here = Machine.detect({})
    assert here.cores >= 1
    assert here.ram_total > 0
    assert here.gpus == ()


def test_a_space_is_recognised_and_zero_gpu_counts_as_a_graphics_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    here = Machine.detect({"SPACE_ID": "a/b", "SPACES_ZERO_GPU": "true"})
    assert here.on_space
    assert here.zero_gpu
    assert [gpu.total for gpu in here.gpus] == [looking.ZERO_GPU_BYTES]


def test_apple_silicon_shares_its_memory_with_every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    here = Machine.detect({})
    assert [gpu.unified for gpu in here.gpus] == [True]
    assert fit(CATALOG.cards[0], "llama_cpp", here).tokens_per_s is None
    assert not fit(CATALOG.cards[0], "transformers", here).on_gpu


def test_cards_are_read_off_nvidia_smi_and_those_that_tell_nothing_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = "NVIDIA H200, 143771, 143000\nOdd, name, 16384, 1024\nNVIDIA GB10, [N/A], [N/A]\n\nnonsense\n"
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/nvidia-smi")
    answer = subprocess.CompletedProcess([], 0, stdout=table)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: answer)
    found = Machine.detect({}).gpus
    assert [(gpu.name, gpu.total, gpu.free) for gpu in found] == [
        ("NVIDIA H200", 143771 * 1024**2, 143000 * 1024**2),
        ("Odd, name", 16384 * 1024**2, 1024**3),
    ]
    assert Machine.detect({"CUDA_VISIBLE_DEVICES": ""}).gpus == ()


@pytest.mark.parametrize(
    ("membership", "files", "memory", "free", "cpus"),
    [
        ("", {}, NO_LIMITS.memory, NO_LIMITS.memory_free, NO_LIMITS.cpus),
        ("0::/\n", {"memory.max": "max", "cpu.max": "max 100000"}, *NO_LIMITS),
        (
            "0::/a/b\n",
            {
                "a/memory.max": "1000",
                "a/memory.current": "700",
                "a/memory.stat": "anon 300\ninactive_file 400",
                "a/b/memory.max": "max",
                "a/b/cpu.max": "150000 100000",
            },
            1000,
            700,
            1.5,
        ),
        ("0::/the/hosts/path\n", {"memory.max": "1000", "memory.current": "250"}, 1000, 750, NO_LIMITS.cpus),
        (
            "4:memory:/x\n1:cpu,cpuacct:/y\n0::/\n",
            {
                "memory/x/memory.limit_in_bytes": "2000",
                "memory/x/memory.usage_in_bytes": "2500",
                "cpu/y/cpu.cfs_quota_us": "50000",
                "cpu/y/cpu.cfs_period_us": "100000",
            },
            2000,
            0,
            0.5,
        ),
        ("4:memory:/\n", {"memory/cpu.cfs_quota_us": "-1"}, *NO_LIMITS),
    ],
)
def test_container_limits_of_both_versions_are_read(
    tmp_path: Path, membership: str, files: dict[str, str], memory: int, free: int, cpus: float
) -> None:
    (tmp_path / "membership").write_text(membership)
    root = tmp_path / "cgroup"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    assert looking.cgroup_limits(root, tmp_path / "membership") == (memory, free, cpus)


@given(st.text(), st.text())
def test_no_text_in_the_control_files_is_too_odd(membership: str, content: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking, "_read", lambda path: membership if path.name == "cgroup" else content)
        limits = looking.cgroup_limits()
    assert limits.memory > 0
    assert limits.cpus > 0
