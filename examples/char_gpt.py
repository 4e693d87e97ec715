"""A small GPT that learns a text letter by letter, and then goes on writing it.

A transformer as in Keras's examples: layers of one's own for the embeddings and the blocks, causal
attention by `use_causal_mask`, a schedule with warmup, and sampling with a temperature. The text is
a grammar's: sentences about animals, written here by a few random choices. So what a sample should
look like is known: words that exist, sentences that end, and verbs that fit.

    python examples/char_gpt.py
"""

import numpy as np
from shared import parse_options, progress

import onnxtape as ot
from onnxtape import layers, ops

length, batch_size = 64, 32


def write_text(sentences=2000):
    """A text of short sentences."""
    rng = np.random.default_rng(0)
    one = ["the cat", "the old dog", "a small bird", "my horse", "the fox"]
    many = ["the cats", "two old dogs", "some birds", "my horses", "all foxes"]
    does = ["sleeps", "sings", "runs to the river", "sees the moon", "eats an apple"]
    do = ["sleep", "sing", "run to the river", "see the moon", "eat apples"]
    when = ["at night", "in the morning", "when it rains", "after lunch"]
    written = []
    for _ in range(sentences):
        who, what = ((one, does), (many, do))[rng.integers(2)]
        words = [rng.choice(who), rng.choice(what)]
        if rng.random() < 0.5:
            words.insert(rng.integers(2) * 2, rng.choice(when))
        sentence = " ".join(words)
        written.append(sentence[0].upper() + sentence[1:] + ".")
    return " ".join(written)


class Embeddings(layers.Layer):
    """A vector for each letter, plus one for its place."""

    def __init__(self, letters, width, **kwargs):
        super().__init__(**kwargs)
        self.letter = layers.Embedding(letters, width)
        self.place = layers.Embedding(length, width)

    def call(self, x):
        return self.letter(x) + self.place(ops.arange(ops.shape(x)[1]))


class Block(layers.Layer):
    """Attention to earlier letters, then a network for each letter; both added to what comes in."""

    def __init__(self, width, heads, rate=0.1, **kwargs):
        super().__init__(**kwargs)
        self.norm_1, self.norm_2 = layers.LayerNormalization(), layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(heads, width // heads, dropout=rate)
        self.network = ot.Sequential(
            [layers.Dense(4 * width, activation="gelu"), layers.Dense(width), layers.Dropout(rate)]
        )

    def call(self, x):
        y = self.norm_1(x)
        x = x + self.attention(y, y, use_causal_mask=True)
        return x + self.network(self.norm_2(x))


def make_model(letters, width=64, heads=4, blocks=2):
    inputs = ot.Input(shape=(None,), dtype="int32")
    x = Embeddings(letters, width)(inputs)
    for _ in range(blocks):
        x = Block(width, heads)(x)
    outputs = layers.Dense(letters)(layers.LayerNormalization()(x))
    return ot.Model(inputs, outputs, name="char_gpt")


def sample(model, begin, count, temperature=0.5):
    """Numbers that go on after `begin`, each drawn from what the model expects there."""
    predict = ot.function(
        lambda x: model(x)[:, -1] / temperature,
        input_signature=[ot.TensorSpec((1, None), "int32")],
    )
    written = list(begin)
    for _ in range(count):
        expected = predict(np.asarray([written[-length:]], np.int32))
        written.append(int(ot.random.categorical(expected, 1)[0, 0]))
    return written


def main():
    options = parse_options(__doc__, epochs=8, data=False)
    ot.set_seed(options.seed)
    text = write_text()
    alphabet = sorted(set(text))
    numbers = np.asarray([alphabet.index(letter) for letter in text], np.int32)
    print(f"{len(text)} letters, {len(alphabet)} different ones: {text[:60]}...")

    # Each window is learned to predict itself, one letter on.
    begins = np.arange(0, len(numbers) - length - 1, length // 2)
    windows = numbers[begins[:, None] + np.arange(length + 1)]
    dataset = ot.data.Dataset.from_tensor_slices((windows[:, :-1], windows[:, 1:]))
    dataset = dataset.shuffle(len(windows)).batch(batch_size)

    model = make_model(len(alphabet))
    model.summary()
    steps = options.epochs * (options.steps or len(dataset))
    schedule = ot.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=2e-3, warmup_steps=steps // 10
    )
    optimizer = ot.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0)
    loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    mean_loss = ot.metrics.Mean()

    @ot.function(input_signature=[ot.TensorSpec((None, length), "int32")] * 2)
    def train_step(x, y):
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        mean_loss.update_state(loss)

    for epoch in range(options.epochs):
        mean_loss.reset_state()
        for x, y in progress(dataset.take(options.steps or len(dataset)), f"epoch {epoch}"):
            train_step(x, y)
        print(f"epoch {epoch}: loss {float(mean_loss.result()):.3f}", flush=True)

    begin = [alphabet.index(letter) for letter in "The "]
    written = sample(model, begin, 40 if options.steps else 300)
    print("".join(alphabet[i] for i in written))


if __name__ == "__main__":
    main()
