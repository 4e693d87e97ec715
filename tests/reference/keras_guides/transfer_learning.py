"""Transfer learning & fine-tuning: Keras's guide, with small data."""

layer = keras.layers.Dense(3)
layer.build((None, 4))
print("weights:", len(layer.weights), len(layer.trainable_weights), len(layer.non_trainable_weights))
layer = keras.layers.BatchNormalization()
layer.build((None, 4))
print("weights:", len(layer.weights), len(layer.trainable_weights), len(layer.non_trainable_weights))
layer = keras.layers.Dense(3)
layer.build((None, 4))
layer.trainable = False
print("weights:", len(layer.weights), len(layer.trainable_weights), len(layer.non_trainable_weights))
layer1 = keras.layers.Dense(3, activation="relu")
layer2 = keras.layers.Dense(3, activation="sigmoid")
model = keras.Sequential([keras.Input(shape=(3,)), layer1, layer2])
layer1.trainable = False
initial_layer1_weights_values = layer1.get_weights()
model.compile(optimizer="adam", loss="mse")
model.fit(data((2, 3)), data((2, 3), 1), verbose=0)
final_layer1_weights_values = layer1.get_weights()
np.testing.assert_allclose(initial_layer1_weights_values[0], final_layer1_weights_values[0])
inner_model = keras.Sequential([keras.Input(shape=(3,)), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(3, activation="relu")])
model = keras.Sequential([keras.Input(shape=(3,)), inner_model, keras.layers.Dense(3, activation="sigmoid")])
model.trainable = False
assert inner_model.trainable == False
assert inner_model.layers[0].trainable == False
i = keras.Input(shape=(30, 30, 3))
x = layers.Conv2D(8, 3, padding="same", use_bias=False)(i)
x = layers.BatchNormalization()(x)
x = layers.ReLU()(x)
x = layers.SeparableConv2D(16, 3, strides=2, padding="same")(x)
x = layers.BatchNormalization()(x)
base_model = keras.Model(i, layers.ReLU()(x), name="base")
same(base_model)
base_model.trainable = False
inputs = keras.Input(shape=(30, 30, 3))
scale_layer = keras.layers.Rescaling(scale=1 / 127.5, offset=-1)
x = scale_layer(inputs)
x = base_model(x, training=False)
x = keras.layers.GlobalAveragePooling2D()(x)
x = keras.layers.Dropout(0.0)(x)
outputs = keras.layers.Dense(1)(x)
model = keras.Model(inputs, outputs)
same(model, 9)
model.summary(show_trainable=True)
X, Y = (data((96, 30, 30, 3)) + 2) * 60, (data((96, 1)) > 0).astype("float32")
train_ds = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32).prefetch(2).cache()
model.compile(optimizer=keras.optimizers.Adam(), loss=keras.losses.BinaryCrossentropy(from_logits=True), metrics=[keras.metrics.BinaryAccuracy()])
h = model.fit(train_ds, epochs=5, validation_data=train_ds, verbose=0).history
R["top"] = h["loss"] + h["val_loss"] + h["val_binary_accuracy"]
base_model.trainable = True
model.summary(show_trainable=True)
model.compile(optimizer=keras.optimizers.Adam(1e-5), loss=keras.losses.BinaryCrossentropy(from_logits=True), metrics=[keras.metrics.BinaryAccuracy()])
h = model.fit(train_ds, epochs=3, validation_data=train_ds, verbose=0).history
R["fine"] = h["loss"]
data_augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
print(data_augmentation(ops.convert_to_tensor(X[:2]), training=True).shape)
@tf.function
def step(new_dataset_x, y):
    with tf.GradientTape() as tape:
        predictions = model(new_dataset_x)
        loss_value = keras.losses.BinaryCrossentropy(from_logits=True)(y, predictions)
    gradients = tape.gradient(loss_value, model.trainable_weights)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_weights))
    return loss_value
R["tape"] = [step(ops.convert_to_tensor(X[:32]), ops.convert_to_tensor(Y[:32])) for _ in range(3)]
