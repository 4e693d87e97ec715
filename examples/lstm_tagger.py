"""A bidirectional LSTM that says of each word of a sentence what it is: noun, verb, ...

Sentences have different lengths, so they are padded with zeros, and `Embedding(mask_zero=True)`
makes a mask of that: the LSTM skips the padding, and it counts neither in the loss nor in the
accuracy. Many English words are more than one thing ("they watch the watch"), so the tag depends on
the words around. The sentences are a grammar's, written here.

    python examples/lstm_tagger.py
"""

import numpy as np
from shared import parse_options

import onnxtape as ot
from onnxtape import layers

TAGS = ["", "pronoun", "determiner", "adjective", "noun", "verb", "adverb"]
WORDS = {
    "pronoun": "i you we they",
    "determiner": "the a my her every",
    "adjective": "light dark fast cold clear kind",
    # Most of these are verbs, too; and some adjectives are adverbs or nouns.
    "noun": "watch play book walk dream light kind cold answer step",
    "verb": "watch play book walk dream light answer step clear",
    "adverb": "fast often here today",
}
#: What a sentence may be made of.
PATTERNS = [
    "pronoun verb determiner noun",
    "pronoun adverb verb determiner adjective noun",
    "determiner noun verb adverb",
    "determiner adjective noun verb determiner noun adverb",
    "pronoun verb",
    "determiner adjective adjective noun verb determiner adjective noun adverb",
]


def write_sentences(count, seed):
    """Sentences as lists of words, and their tags."""
    rng = np.random.default_rng(seed)
    tags = [rng.choice(PATTERNS).split() for _ in range(count)]
    return [[str(rng.choice(WORDS[tag].split())) for tag in sentence] for sentence in tags], tags


def numbered(sentences, vocabulary):
    """(sentences, longest) numbers; 0 for padding."""
    numbers = [[vocabulary.index(word) for word in sentence] for sentence in sentences]
    return ot.utils.pad_sequences(numbers, padding="post")


def main():
    options = parse_options(__doc__, epochs=8, data=False)
    ot.set_seed(options.seed)
    vocabulary = ["", *sorted(set(" ".join(WORDS.values()).split()))]
    sentences, tags = write_sentences(2000, seed=0)
    x, y = numbered(sentences, vocabulary), numbered(tags, TAGS)
    test_sentences, test_tags = write_sentences(300, seed=1)
    x_test, y_test = numbered(test_sentences, vocabulary), numbered(test_tags, TAGS)

    model = ot.Sequential(
        [
            ot.Input(shape=(None,), dtype="int32"),
            layers.Embedding(len(vocabulary), 16, mask_zero=True),
            layers.Bidirectional(layers.LSTM(16, return_sequences=True)),
            layers.Dropout(0.2),
            layers.Dense(len(TAGS)),
        ],
        name="tagger",
    )
    model.summary()
    model.compile(
        optimizer=ot.optimizers.Adam(0.01),
        loss=ot.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        x,
        y,
        batch_size=64,
        epochs=options.epochs,
        steps_per_epoch=options.steps,
        validation_data=(x_test, y_test),
        verbose=0,
    ).history
    for epoch, loss in enumerate(history["loss"]):
        accuracy = history["val_accuracy"][epoch]
        print(f"epoch {epoch}: loss {loss:.3f}, test accuracy {accuracy:.3f}")

    print("\nThe first test sentences, by the model:")
    for words, row in zip(test_sentences[:5], model.predict(x_test[:5], verbose=0), strict=True):
        found = row.argmax(-1)[: len(words)]
        print("  " + " ".join(f"{w}/{TAGS[tag]}" for w, tag in zip(words, found, strict=True)))


if __name__ == "__main__":
    main()
