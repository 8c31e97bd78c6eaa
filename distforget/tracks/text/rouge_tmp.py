import pyarrow as pa
from rouge_score.rouge_scorer import RougeScorer


def rouge_scores(p, r, use_stemmer):
    s = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=use_stemmer)
    out = []
    for a, b in zip(p, r):
        x = s.score(b, a)
        out.append(
            {
                f"{k}_{n}": getattr(v, n)
                for k, v in x.items()
                for n in ("precision", "recall", "fmeasure")
            }
        )
    return pa.Table.from_pylist(out)
