"""The licences, tasks and metrics that the Hub knows in a model card's front matter.

The Hub refuses any other value there, and publishes no list that could be read offline.
"""

from __future__ import annotations

from difflib import get_close_matches

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.params import CardParams


def _terms(text: str) -> frozenset[str]:
    return frozenset(text.split())


# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = _terms("""
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m
    bigscience-bloom-rail-1.0 bigscience-openrail-m blueoak-1.0.0 bsd bsd-2-clause
    bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0
    cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
    creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0
    grok2-community h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2
    llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl
    odc-by ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0 other pddl
    postgresql unknown unlicense wtfpl zlib
    """)

# https://huggingface.co/tasks, and `other` where none of them fits
TASKS = _terms("""
    any-to-any audio-classification audio-text-to-text audio-to-audio
    automatic-speech-recognition depth-estimation document-question-answering
    feature-extraction fill-mask graph-ml image-classification image-feature-extraction
    image-segmentation image-text-to-image image-text-to-text image-text-to-video
    image-to-3d image-to-image image-to-text image-to-video keypoint-detection
    mask-generation multiple-choice object-detection other question-answering
    reinforcement-learning robotics sentence-similarity summarization
    table-question-answering table-to-text tabular-classification tabular-regression
    tabular-to-text text-classification text-generation text-ranking text-retrieval
    text-to-3d text-to-audio text-to-image text-to-speech text-to-video
    time-series-forecasting token-classification translation
    unconditional-image-generation video-classification video-text-to-text
    video-to-video visual-document-retrieval visual-question-answering
    voice-activity-detection zero-shot-classification zero-shot-image-classification
    zero-shot-object-detection
    """)


# https://huggingface.co/metrics
METRICS = _terms("""
    accuracy bertscore bleu bleurt brier_score cer character charcut_mt chrf code_eval
    comet competition_math coval cuad exact_match f1 frugalscore glue google_bleu
    indic_glue mae mahalanobis mape mase matthews_correlation mauve mean_iou meteor mse
    nist_mt pearsonr perplexity poseval precision r_squared recall rl_reliability
    roc_auc rouge sacrebleu sari seqeval smape spearmanr squad squad_v2 super_glue ter
    trec_eval wer wiki_split xnli xtreme_s
    """)

_SPLITS = ("best_", "eval_", "test_", "val_", "valid_", "validation_")


def metric_id(name: str) -> str | None:
    """The Hub's metric that a checkpoint's name stands for, such as f1 for val_f1.

    Args:
        name: dotted, as the checkpoint has it.

    Returns:
        None where the Hub has none of that name.
    """
    own_name = name.rpartition(".")[2]
    for split in _SPLITS:
        own_name = own_name.removeprefix(split)
    return own_name if own_name in METRICS else None


def check_terms(card: CardParams) -> None:
    """Make sure that the Hub accepts the card's licence and task.

    Raises:
        ParamsError: it doesn't; the message names the option, what was found and what
            comes close.
    """
    problems = [*_license_problems(card), *_task_problems(card)]
    if problems:
        raise ParamsError(
            "the Hub doesn't accept these options:\n" + "\n".join(problems),
            "correct them",
            options=["card.license", "card.license_name", "card.pipeline_tag"],
        )


def _license_problems(card: CardParams) -> list[str]:
    """What the Hub refuses about the licence, a line each."""
    problems = []
    if card.license is not None and card.license not in LICENSES:
        near = [*_nearest(card.license, LICENSES), "other with a license_name"]
        problems.append(
            f"  {{card.license}}: found {card.license!r}: not a licence identifier of"
            f" the Hub; closest: {', '.join(near)}"
        )
    if (card.license == "other") != (card.license_name is not None):
        problems.append(
            f"  {{card.license_name}}: found {card.license_name!r}: the Hub wants a"
            " name with license: other, and with no other licence"
        )
    return problems


def _task_problems(card: CardParams) -> list[str]:
    """What the Hub refuses about the task, a line each."""
    if card.pipeline_tag is None or card.pipeline_tag in TASKS:
        return []
    near = [*_nearest(card.pipeline_tag, TASKS), "other"]
    return [
        f"  {{card.pipeline_tag}}: found {card.pipeline_tag!r}: not a task of the Hub;"
        f" closest: {', '.join(near)}"
    ]


def _nearest(value: str, terms: frozenset[str]) -> list[str]:
    """The terms that look most like the value, best first."""
    return get_close_matches(value.lower(), terms, n=3, cutoff=0.4)
