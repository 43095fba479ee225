"""The words put to the models for each task: reasoning, step by step, code, languages.

Pure functions from what the user chose to messages; knows nothing of engines or screens.
"""

from __future__ import annotations

from backends.core.types import Message, Text

# For models never trained to think. Worded so that the 1.5B also checks itself; see docs/decisions/engines.md.
REASONING = (
    "Before you answer, think step by step inside <think>...</think>. Say what is known and what is asked, write the"
    " equations or facts you need, work them out, and check the result against every condition of the question."
    " After </think>, write the answer for the user, complete in itself, without mentioning the thinking."
)

# Qwen's own recommendation for mathematics (Qwen2.5-Math and Qwen3 model cards).
STEP_BY_STEP = "Please reason step by step, and put your final answer within \\boxed{}."

CODING = {
    "write": "Write {language} code that does what the user asks. Answer with one complete code block, then at most"
    " three sentences on how it works.",
    "explain": "Explain the {language} code that the user gives: what it does as a whole, then its parts in order, then"
    " what could surprise a reader. Quote only the lines you speak of.",
    "fix": "Find what is wrong in the {language} code that the user gives. Name the fault in one sentence, then give"
    " the whole corrected code in one code block.",
    "test": "Write tests in {language} for the code that the user gives, with the language's usual test framework."
    " Cover the normal case, the edges and the errors. Answer with one complete code block.",
}

ANSWER_IN = "Answer only in {language}, whatever language the question is in. Do not translate or repeat the question."
TRANSLATE_TO = (
    "You are a translator. Translate the user's text into {language}. Give the translation alone: no comment, no"
    " quotation marks, no other language. Keep names, numbers, code and line breaks as they are."
)

LOOKING = {
    "answer": "",
    "describe": "Describe the picture: what it shows as a whole, then what stands where. Say only what can be seen.",
    "read": "Read all text in the picture. Answer with the text alone, line by line, as it is written, in its own"
    " language.",
    "chart": "The picture is a chart or a table. Say what it shows, read the values off it, then answer the question.",
    "find": "Find what the user asks for in the picture. Answer with JSON alone, one entry for each thing found:"
    ' [{"bbox_2d": [x0, y0, x1, y1], "label": "..."}]. An empty list means that nothing was found.',
}


def with_system(messages: tuple[Message, ...], addition: tuple[Text, ...]) -> tuple[Message, ...]:
    """The messages with `addition` at the end of the system message, which is made where there is none."""
    if not addition:
        return messages
    if messages and messages[0].role == "system":
        return (Message("system", (*messages[0].parts, Text("\n\n"), *addition)), *messages[1:])
    return (Message("system", addition), *messages)


def with_reasoning_prompt(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages asked to be thought about. It stands first, so that the task's own words are the last to be read."""
    reasoning = Text(f"{REASONING}\n\n", ours=True)
    if messages and messages[0].role == "system":
        return (Message("system", (reasoning, *messages[0].parts)), *messages[1:])
    return (Message("system", (reasoning,)), *messages)


def ours(text: str) -> tuple[Text, ...]:
    """The playground's own words; nothing where there are none."""
    return (Text(text, ours=True),) if text else ()


def coding(task: str, language: str, constraints: str) -> tuple[Text, ...]:
    """The system text of a coding task: 'write', 'explain', 'fix' or 'test'. Raises KeyError on another.

    `language` is one of ours, `constraints` are what someone typed.
    """
    text = CODING[task].format(language=language)
    if not constraints.strip():
        return ours(text)
    return (*ours(f"{text}\n\nConstraints that the code must keep:\n"), Text(constraints.strip()))


def in_language(task: str, language: str) -> tuple[Text, ...]:
    """The system text for one column: 'answer' or 'translate' into a language, named in English by us."""
    return ours((TRANSLATE_TO if task == "translate" else ANSWER_IN).format(language=language))
