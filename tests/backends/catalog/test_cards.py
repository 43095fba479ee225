"""The catalogue: what every card must hold, and what the reader refuses."""

from __future__ import annotations

import copy
import tomllib
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.catalog.cards import CATALOG_FILE, Artefact, Card, Catalog, OfficialSampling, Task
from backends.core.errors import UnknownModel
from backends.core.types import Sampling
from backends.pictures.decoder import STORED_PIXELS

CATALOG = Catalog.read()
DATA = tomllib.loads(CATALOG_FILE.read_text("utf-8"))
EYES = {"side": 32, "fewest": 16, "default": 1280, "most": 2560, "boxes": "thousandths"}
TASKS = (*get_args(Task), "a task of a tab to come")

every_card = pytest.mark.parametrize("card", CATALOG.cards, ids=lambda card: card.id)


def modes(card: Card) -> list[bool]:
    return sorted({card.thinks(wanted) for wanted in (False, True)})


def minimal(**changes: Any) -> dict[str, Any]:
    """The smallest valid card."""
    rows: list[dict[str, Any]] = [
        {"values": {}, "thinking": thinking, "source": "a test"} for thinking in (False, True)
    ]
    return {
        "id": "m",
        "name": "M",
        "family": "F",
        "parameters": 1,
        "context": 4096,
        "licence": "Apache-2.0",
        "thinking": {"kind": "switch"},
        "kv_bytes_per_token": 1,
        "sampling": rows,
        "artefacts": [{"engine": "llama_cpp", "file": "m.gguf", "bytes": 1, "hub": "a/b"}],
    } | changes


def faults_of(*models: dict[str, Any], **data: Any) -> str:
    with pytest.raises(ValueError, match="The catalog has faults") as caught:
        Catalog.of({"model": list(models)} | data)
    return str(caught.value)


# --- the shipped cards ---------------------------------------------------------------------------


def test_the_order_begins_with_the_starters() -> None:
    assert [card.id for card in CATALOG][:2] == ["qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-0.5b-instruct"]


def test_ids_are_unique() -> None:
    assert len({card.id for card in CATALOG}) == len(CATALOG.cards)


@every_card
def test_every_mode_of_every_task_has_exactly_one_official_row(card: Card) -> None:
    for thinking, task, images in product(modes(card), TASKS, (False, True)):
        chosen = card.official(task, thinking, images)
        matching = [
            row
            for row in card.sampling
            if row.thinking == thinking and row.task in (None, task) and row.images in (None, images)
        ]
        assert [row for row in matching if row.conditions >= chosen.conditions] == [chosen]


@every_card
def test_official_values_are_complete_and_within_bounds(card: Card) -> None:
    for row in card.sampling:
        assert row.values.model_fields_set == set(Sampling.model_fields) - {"seed"}
        assert Sampling.model_validate(row.values.model_dump()) == row.values
        assert row.source


@every_card
def test_conflicting_sources_name_the_value_chosen(card: Card) -> None:
    for row in card.sampling:
        assert ("conflict" not in row.source) or ("chosen" in row.source)


@every_card
def test_prompted_thinking_uses_the_non_thinking_values_and_says_so(card: Card) -> None:
    if card.thinking.kind != "prompted":
        return
    for task, images in product(TASKS, (False, True)):
        thinking, plain = card.official(task, True, images), card.official(task, False, images)
        assert thinking.values == plain.values
        assert thinking.source.startswith("no official thinking mode: the non-thinking values")


@every_card
def test_a_prompted_model_does_not_think_by_default(card: Card) -> None:
    assert not (card.thinking.kind == "prompted" and card.thinking.default)


@every_card
def test_every_model_can_be_had_by_some_engine(card: Card) -> None:
    assert card.sources("llama_cpp") or card.sources("transformers")
    for artefact in card.artefacts:
        assert artefact.hub or artefact.modelscope or artefact.wheels or artefact.folder
        assert artefact.sha256 or not artefact.wheels


@every_card
def test_licences_other_than_apache_carry_a_warning(card: Card) -> None:
    assert card.licence == "Apache-2.0" or card.licence_warning


@every_card
def test_a_model_that_sees_has_its_projector_beside_its_gguf(card: Card) -> None:
    has_model, has_projector = (card.artefact("llama_cpp", role) is not None for role in ("model", "projector"))
    assert has_projector == (has_model and "image" in card.modalities)
    assert ("image" in card.good_at) == ("image" in card.modalities)


@every_card
def test_a_model_that_sees_has_eyes_that_no_picture_kept_is_too_small_for(card: Card) -> None:
    assert (card.eyes is not None) == ("image" in card.modalities)
    assert card.eyes is None or card.eyes.most * card.eyes.side**2 <= STORED_PIXELS


@every_card
def test_a_models_files_are_near_the_size_that_its_parameters_suggest(card: Card) -> None:
    """Catches a slipped digit: 4 to 9 bits a parameter, the projector at 16."""
    if card.artefact("llama_cpp") and not card.demo:  # that is 16 bit throughout
        assert 0.5 <= card.weight_bytes("llama_cpp") / (card.parameters * 1e9) <= 1.2


@every_card
def test_kv_bytes_are_what_the_comment_in_the_file_computes(card: Card) -> None:
    """The comment reads '28 layers x 2 KV heads x 128 x 2 x 2 bytes'."""
    lines = CATALOG_FILE.read_text("utf-8").splitlines()
    start = lines.index(f'id = "{card.id}"')
    line = next(line for line in lines[start:] if line.startswith("kv_bytes_per_token"))
    comment = line.split("#")[1]
    layers = int(comment.split()[0])
    heads = int(comment.split(" x ")[1].split()[0])
    head_size = int(comment.split(" x ")[2])
    assert card.kv_bytes_per_token == layers * heads * head_size * 2 * 2


# --- fewer bits ----------------------------------------------------------------------------------


def test_every_repository_is_also_there_with_fewer_bits_right_after_the_card() -> None:
    ids = [card.id for card in CATALOG.with_quantised("transformers")]
    expected = [
        name
        for card in CATALOG
        for name in ((card.id, f"{card.id}-8bit", f"{card.id}-4bit") if card.repository("transformers") else (card.id,))
    ]
    assert ids == expected
    assert len(ids) > len(CATALOG.cards)


@every_card
def test_fewer_bits_take_less_memory_and_change_nothing_else(card: Card) -> None:
    if not card.repository("transformers"):
        return
    offered = CATALOG.with_quantised("transformers")
    full, *smaller = (offered.get(card.id + suffix) for suffix in ("", "-8bit", "-4bit"))
    assert full == card
    weights = [one.weight_bytes("transformers") for one in (full, *smaller)]
    assert weights == sorted(weights, reverse=True)
    assert weights[2] > 0.25 * weights[0], "some layers stay at 16 bit"
    for one in smaller:
        suffix = one.quantisation.replace("bit", "-bit")
        assert one.name == f"{card.name} · {suffix}"
        assert one.note.startswith(card.note)
        assert f"{(weights[0] - one.weight_bytes('transformers')) / 1e9:.1f} GB less" in one.note
        again = one.model_copy(update={name: getattr(card, name) for name in ("id", "name", "note", "quantisation")})
        assert again == card
        assert Card.model_validate(one.model_dump()) == one


def test_what_is_quantised_already_or_has_no_repository_stays_alone() -> None:
    repository = {"engine": "transformers", "hub": "a/b"}
    catalog = Catalog.of({"model": [minimal(quantisation="4bit", repositories=[repository]), minimal(id="gguf")]})
    assert catalog.with_quantised("transformers").cards == catalog.cards
    assert catalog.with_quantised("llama_cpp").cards == catalog.cards


# --- a host's longest answer ---------------------------------------------------------------------


@given(longest=st.integers(1, 100_000))
def test_no_official_answer_is_longer_than_the_host_allows_and_nothing_else_changes(longest: int) -> None:
    capped = CATALOG.capped(longest)
    assert capped.longest_answer == longest
    for before, after in zip(CATALOG, capped, strict=True):
        for row, held in zip(before.sampling, after.sampling, strict=True):
            tokens = min(row.values.max_new_tokens, longest)
            assert held.values == row.values.model_copy(update={"max_new_tokens": tokens})
            assert held.model_copy(update={"values": row.values}) == row
        assert after.model_copy(update={"sampling": before.sampling}) == before


def test_a_host_without_a_limit_leaves_the_cards_as_they_are() -> None:
    assert CATALOG.longest_answer == 0
    assert CATALOG.capped(0).cards == CATALOG.cards
    assert CATALOG.capped(0).longest_answer == 0


def test_a_capped_catalogue_finds_its_own_cards() -> None:
    capped = CATALOG.capped(100)
    assert all(capped.get(card.id) is card for card in capped)
    assert {row.values.max_new_tokens for card in capped for row in card.sampling} == {100}


def test_fewer_bits_keep_the_longest_answer() -> None:
    offered = CATALOG.capped(100).with_quantised("transformers")
    assert offered.longest_answer == 100
    assert {row.values.max_new_tokens for card in offered for row in card.sampling} == {100}
    assert offered.cards == CATALOG.with_quantised("transformers").capped(100).cards


# --- what the reader refuses ---------------------------------------------------------------------


@given(st.text(max_size=200).filter(lambda text: text not in {card.id for card in CATALOG}))
def test_an_unknown_id_is_refused(card_id: str) -> None:
    with pytest.raises(UnknownModel):
        CATALOG.get(card_id)


def test_a_very_long_id_is_not_echoed_whole() -> None:
    with pytest.raises(UnknownModel) as caught:
        CATALOG.get("x" * 10_000)
    assert len(caught.value.message) < 200


def test_the_minimal_card_of_these_tests_is_valid() -> None:
    assert [card.id for card in Catalog.of({"model": [minimal()]})] == ["m"]
    Catalog.of({"model": [minimal(modalities=["text", "image"], eyes=EYES)]})


def test_all_faults_are_reported_at_once() -> None:
    report = faults_of(
        minimal(id="Not An Id"),
        minimal(id="no-context", context=0, name=7),
        minimal(id="typo", contxt=1),
        minimal(id="lost", sampling="no such profile"),
        minimal(id="twice"),
        minimal(id="twice"),
        modle=[],
    )
    parts = [
        "Not An Id: id",
        "no-context: context",
        "no-context: name",
        "typo: contxt",
        "no such profile",
        "twice",
        "modle",
    ]
    for part in parts:
        assert part in report


def test_broken_toml_is_a_value_error_with_its_line() -> None:
    broken = CATALOG_FILE.read_text("utf-8").replace("[[model]]", "[[model", 1)
    with pytest.raises(ValueError, match="line"):
        tomllib.loads(broken)


@pytest.mark.parametrize("field", sorted(minimal()))
def test_no_field_of_a_card_may_be_missing_that_it_cannot_do_without(field: str) -> None:
    card = minimal()
    del card[field]
    faults_of(card)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"licence": "Qwen Research"}, "licence_warning"),
        ({"thinking": {"kind": "always"}}, "default = true"),
        ({"sampling": minimal()["sampling"][:1]}, "no general sampling row"),
        ({"sampling": minimal()["sampling"] * 2}, "neither is more specific"),
        ({"good_at": ["cooking"]}, "good_at"),
        ({"modalities": ["text", "image"]}, "has eyes"),
        ({"eyes": EYES}, "has eyes"),
        ({"modalities": ["text", "image"], "eyes": EYES | {"most": 8}}, "fewest <= default <= most"),
        ({"modalities": ["text", "image"], "eyes": EYES | {"boxes": "inches"}}, "boxes"),
        ({"repositories": [{"engine": "e", "hub": "a/b", "gguf": "other.gguf"}]}, "no artefact"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(changes: dict[str, Any], fault: str) -> None:
    assert fault in faults_of(minimal(**changes))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"hub": None}, "no place to fetch"),
        ({"wheels": {"package": "p{part}", "version": "1", "parts": 2}}, "sha256"),
        ({"wheels": {"package": "p", "version": "1", "parts": 2}, "sha256": "0" * 64}, "package"),
        ({"file": "../m.gguf"}, "file"),
        ({"sha256": "0" * 63}, "sha256"),
    ],
)
def test_an_artefact_that_cannot_be_trusted_is_refused(changes: dict[str, Any], fault: str) -> None:
    artefact = minimal()["artefacts"][0]
    Artefact.model_validate(artefact)
    assert fault in faults_of(minimal(artefacts=[artefact | changes]))


@given(
    st.lists(
        st.builds(
            OfficialSampling,
            values=st.just(Sampling()),
            thinking=st.booleans(),
            task=st.sampled_from([None, "chat", "coding"]),
            images=st.sampled_from([None, False, True]),
            source=st.just("a test"),
        ),
        max_size=5,
    )
)
def test_a_card_is_accepted_only_if_official_is_never_ambiguous(rows: list[OfficialSampling]) -> None:
    general = minimal()["sampling"]
    try:
        card = Card.model_validate(minimal(sampling=[*general, *(row.model_dump() for row in rows)]))
    except ValueError:
        return
    for thinking, task, images in product((False, True), TASKS, (False, True)):
        matching = [
            row
            for row in card.sampling
            if row.thinking == thinking and row.task in (None, task) and row.images in (None, images)
        ]
        best = max(row.conditions for row in matching)
        assert sum(row.conditions == best for row in matching) == 1


@given(st.data())
def test_any_number_put_out_of_its_bounds_is_refused(data: st.DataObject) -> None:
    broken = copy.deepcopy(DATA)
    card = data.draw(st.sampled_from(broken["model"]))
    field = data.draw(st.sampled_from(["parameters", "context", "kv_bytes_per_token"]))
    card[field] = data.draw(st.integers(max_value=0))
    assert f"{card['id']}: {field}" in faults_of(*broken["model"], profile=broken["profile"])
