"""Working with RNNs: Keras's guide, with small data."""

model = keras.Sequential()
model.add(layers.Embedding(input_dim=1000, output_dim=64))
model.add(layers.LSTM(128))
model.add(layers.Dense(10))
model.summary()
model = keras.Sequential()
model.add(layers.Embedding(input_dim=1000, output_dim=64))
model.add(layers.GRU(256, return_sequences=True))
model.add(layers.SimpleRNN(128))
model.add(layers.Dense(10))
model.summary()
encoder_vocab, decoder_vocab = 1000, 2000
encoder_input = layers.Input(shape=(None,))
encoder_embedded = layers.Embedding(input_dim=encoder_vocab, output_dim=64)(encoder_input)
output, state_h, state_c = layers.LSTM(64, return_state=True, name="encoder")(encoder_embedded)
encoder_state = [state_h, state_c]
decoder_input = layers.Input(shape=(None,))
decoder_embedded = layers.Embedding(input_dim=decoder_vocab, output_dim=64)(decoder_input)
decoder_output = layers.LSTM(64, name="decoder")(decoder_embedded, initial_state=encoder_state)
output = layers.Dense(10)(decoder_output)
model = keras.Model([encoder_input, decoder_input], output)
model.summary()
same(model)
R["s2s"] = model([labels(20, 1000).reshape(2, 10), labels(12, 2000).reshape(2, 6)])
paragraph1, paragraph2, paragraph3 = data((20, 10, 50)), data((20, 10, 50), 1), data((20, 10, 50), 2)
lstm_layer = layers.LSTM(64, stateful=True)
lstm_layer.build((20, 10, 50)); same(lstm_layer)
output = lstm_layer(paragraph1)
output = lstm_layer(paragraph2)
output = lstm_layer(paragraph3)
R["st"] = output
lstm_layer.reset_state()
R["st2"] = lstm_layer(paragraph1)
existing_state = lstm_layer.states
new_lstm_layer = layers.LSTM(64)
new_lstm_layer.build((20, 10, 50)); same(new_lstm_layer)
R["st3"] = new_lstm_layer(paragraph3, initial_state=existing_state)
model = keras.Sequential()
model.add(layers.Input(shape=(5, 10)))
model.add(layers.Bidirectional(layers.LSTM(64, return_sequences=True)))
model.add(layers.Bidirectional(layers.LSTM(32)))
model.add(layers.Dense(10))
model.summary()
same(model)
R["bi"] = model(data((3, 5, 10)))
batch_size, input_dim, units, output_size = 64, 28, 64, 10
def build_model(allow_cudnn_kernel=True):
    if allow_cudnn_kernel:
        lstm_layer = layers.LSTM(units)
    else:
        lstm_layer = layers.RNN(layers.LSTMCell(units))
    model = keras.models.Sequential([keras.Input((None, input_dim)), lstm_layer, layers.BatchNormalization(), layers.Dense(output_size)])
    return model
x_train, y_train = (data((256, 28, 28)) + 2) / 4, labels(256, 10)
sample, sample_label = x_train[0], y_train[0]
for a in (True, False):
    model = build_model(allow_cudnn_kernel=a)
    same(model)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="sgd", metrics=["accuracy"])
    h = model.fit(x_train, y_train, validation_data=(x_train[:50], y_train[:50]), batch_size=batch_size, epochs=3, shuffle=False, verbose=0).history
    R[f"nist{a}"] = h["loss"] + h["val_loss"]
slow_model = build_model(allow_cudnn_kernel=False)
slow_model.set_weights(model.get_weights())
class NestedCell(keras.Layer):
    def __init__(self, unit_1, unit_2, unit_3, **kwargs):
        self.unit_1 = unit_1
        self.unit_2 = unit_2
        self.unit_3 = unit_3
        self.state_size = [(unit_1,), (unit_2, unit_3)]
        self.output_size = [(unit_1,), (unit_2, unit_3)]
        super().__init__(**kwargs)
    def build(self, input_shapes):
        i1 = input_shapes[0][1]
        i2 = input_shapes[1][1]
        i3 = input_shapes[1][2]
        self.kernel_1 = self.add_weight(shape=(i1, self.unit_1), initializer="uniform", name="kernel_1")
        self.kernel_2_3 = self.add_weight(shape=(i2, i3, self.unit_2, self.unit_3), initializer="uniform", name="kernel_2_3")
    def call(self, inputs, states):
        input_1, input_2 = inputs
        s1, s2 = states
        output_1 = ops.matmul(input_1, self.kernel_1)
        output_2_3 = ops.einsum("bij,ijkl->bkl", input_2, self.kernel_2_3)
        state_1 = s1 + output_1
        state_2_3 = s2 + output_2_3
        output = (output_1, output_2_3)
        new_states = (state_1, state_2_3)
        return output, new_states
