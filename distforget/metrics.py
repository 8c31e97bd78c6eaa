"""Names of scores that several modules share."""

from __future__ import annotations

CHOICE_ACCURACY = "choice_accuracy"
"""The score of a multiple-choice question: 1 if the right answer is chosen, else 0."""
FACT_RECALL = "fact_recall"
"""The share of a sample's facts that the answer states, 0 to 1."""
UNICODE = "_unicode"
"""Suffix of ROUGE scores that count the words of all languages."""
MIN_K_PLUS = "min_k_plus"
"""Min-K%++ of the true answer; higher: rather trained on."""
TRUTH_RATIO = "truth_ratio"
"""Probability of wrong answers over that of the true one, from 0; lower means knowledge."""
