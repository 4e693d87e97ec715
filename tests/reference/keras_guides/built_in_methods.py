"""Training & evaluation with the built-in methods: Keras's guide, with small data."""

inputs = keras.Input(shape=(784,), name="digits")
x = layers.Dense(64, activation="relu", name="dense_1")(inputs)
x = layers.Dense(64, activation="relu", name="dense_2")(x)
outputs = layers.Dense(10, activation="softmax", name="predictions")(x)
model = keras.Model(inputs=inputs, outputs=outputs)
same(model)
x_train, y_train = (data((800, 784)) + 2) / 4, labels(800, 10).astype("float32")
x_test, y_test = (data((100, 784), 1) + 2) / 4, labels(100, 10).astype("float32")
x_val, y_val = x_train[-100:], y_train[-100:]
x_train, y_train = x_train[:-100], y_train[:-100]
model.compile(optimizer=keras.optimizers.RMSprop(), loss=keras.losses.SparseCategoricalCrossentropy(), metrics=[keras.metrics.SparseCategoricalAccuracy()])
history = model.fit(x_train, y_train, batch_size=64, epochs=2, validation_data=(x_val, y_val), shuffle=False, verbose=0)
print(sorted(history.history))
R["h"] = history.history["loss"] + history.history["val_loss"]
results = model.evaluate(x_test, y_test, batch_size=128, verbose=0)
R["ev"] = results
predictions = model.predict(x_test[:3], verbose=0)
print("predictions shape:", predictions.shape)
model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy"])
def get_uncompiled_model():
    inputs = keras.Input(shape=(784,), name="digits")
    x = layers.Dense(64, activation="relu", name="dense_1")(inputs)
    x = layers.Dense(64, activation="relu", name="dense_2")(x)
    outputs = layers.Dense(10, activation="softmax", name="predictions")(x)
    model = keras.Model(inputs=inputs, outputs=outputs)
    same(model)
    return model
def get_compiled_model():
    model = get_uncompiled_model()
    model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy"])
    return model
def custom_mean_squared_error(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1)
model = get_uncompiled_model()
model.compile(optimizer=keras.optimizers.Adam(), loss=custom_mean_squared_error)
y_train_one_hot = ops.one_hot(y_train, num_classes=10)
R["c1"] = model.fit(x_train, y_train_one_hot, batch_size=64, epochs=1, shuffle=False, verbose=0).history["loss"]
class CustomMSE(keras.losses.Loss):
    def __init__(self, regularization_factor=0.1, name="custom_mse"):
        super().__init__(name=name)
        self.regularization_factor = regularization_factor
    def call(self, y_true, y_pred):
        mse = ops.mean(ops.square(y_true - y_pred), axis=-1)
        reg = ops.mean(ops.square(0.5 - y_pred), axis=-1)
        return mse + reg * self.regularization_factor
model = get_uncompiled_model()
model.compile(optimizer=keras.optimizers.Adam(), loss=CustomMSE())
R["c2"] = model.fit(x_train, y_train_one_hot, batch_size=64, epochs=1, shuffle=False, verbose=0).history["loss"]
class CategoricalTruePositives(keras.metrics.Metric):
    def __init__(self, name="categorical_true_positives", **kwargs):
        super().__init__(name=name, **kwargs)
        self.true_positives = self.add_variable(shape=(), name="ctp", initializer="zeros")
    def update_state(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.reshape(ops.argmax(y_pred, axis=1), (-1, 1))
        values = ops.cast(y_true, "int32") == ops.cast(y_pred, "int32")
        values = ops.cast(values, "float32")
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, "float32")
            values = ops.multiply(values, sample_weight)
        self.true_positives.assign_add(ops.sum(values))
    def result(self):
        return self.true_positives.value
    def reset_state(self):
        self.true_positives.assign(0.0)
model = get_uncompiled_model()
model.compile(optimizer=keras.optimizers.RMSprop(learning_rate=1e-3), loss=keras.losses.SparseCategoricalCrossentropy(), metrics=[CategoricalTruePositives()])
h = model.fit(x_train, y_train, batch_size=64, epochs=3, shuffle=False, verbose=0).history
print(sorted(h))
R["ctp"] = h["categorical_true_positives"]
class ActivityRegularizationLayer(layers.Layer):
    def call(self, inputs):
        self.add_loss(ops.sum(inputs) * 0.1)
        return inputs
inputs = keras.Input(shape=(784,), name="digits")
x = layers.Dense(64, activation="relu", name="dense_1")(inputs)
x = ActivityRegularizationLayer()(x)
x = layers.Dense(64, activation="relu", name="dense_2")(x)
outputs = layers.Dense(10, name="predictions")(x)
model = keras.Model(inputs=inputs, outputs=outputs)
same(model)
model.compile(optimizer=keras.optimizers.RMSprop(learning_rate=1e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
R["ar"] = model.fit(x_train, y_train, batch_size=64, epochs=1, shuffle=False, verbose=0).history["loss"]
class LogisticEndpoint(layers.Layer):
    def __init__(self, name=None):
        super().__init__(name=name)
        self.loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)
    def call(self, targets, logits, sample_weights=None):
        loss = self.loss_fn(targets, logits, sample_weights)
        self.add_loss(loss)
        return ops.softmax(logits)
inputs = keras.Input(shape=(3,), name="inputs")
targets = keras.Input(shape=(10,), name="targets")
logits = layers.Dense(10)(inputs)
predictions = LogisticEndpoint(name="predictions")(targets, logits)
model = keras.Model(inputs=[inputs, targets], outputs=predictions)
same(model)
model.compile(optimizer="adam")
d = {"inputs": data((3, 3)), "targets": (data((3, 10)) > 0).astype("float32")}
R["endpoint"] = model.fit(d, epochs=1, verbose=0).history["loss"]
model = get_compiled_model()
R["vs"] = model.fit(x_train, y_train, batch_size=64, validation_split=0.2, epochs=1, shuffle=False, verbose=0).history["val_loss"]
model = get_compiled_model()
train_dataset = tf.data.Dataset.from_tensor_slices((x_train, y_train))
train_dataset = train_dataset.batch(64)
test_dataset = tf.data.Dataset.from_tensor_slices((x_test, y_test))
test_dataset = test_dataset.batch(64)
val_dataset = tf.data.Dataset.from_tensor_slices((x_val, y_val)).batch(64)
model.fit(train_dataset, epochs=3, verbose=0)
result = model.evaluate(test_dataset, verbose=0)
R["ds"] = list(dict(zip(model.metrics_names, result)).values())
model = get_compiled_model()
R["steps"] = model.fit(train_dataset.repeat(), epochs=3, steps_per_epoch=10, verbose=0, validation_data=val_dataset, validation_steps=1).history["val_loss"]
class ExamplePyDataset(keras.utils.PyDataset):
    def __init__(self, x, y, batch_size, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.y = y
        self.batch_size = batch_size
    def __len__(self):
        return int(np.ceil(len(self.x) / float(self.batch_size)))
    def __getitem__(self, idx):
        batch_x = self.x[idx * self.batch_size : (idx + 1) * self.batch_size]
        batch_y = self.y[idx * self.batch_size : (idx + 1) * self.batch_size]
        return batch_x, batch_y
train_py_dataset = ExamplePyDataset(x_train, y_train, batch_size=32)
val_py_dataset = ExamplePyDataset(x_val, y_val, batch_size=32)
model = get_compiled_model()
h = model.fit(train_py_dataset, batch_size=64, validation_data=val_py_dataset, epochs=1, shuffle=False, verbose=0).history
R["py"] = h["loss"] + h["val_loss"]
R["pye"] = model.evaluate(val_py_dataset, verbose=0)
class_weight = {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 2.0, 6: 1.0, 7: 1.0, 8: 1.0, 9: 1.0}
model = get_compiled_model()
R["cw"] = model.fit(x_train, y_train, class_weight=class_weight, batch_size=64, epochs=1, shuffle=False, verbose=0).history["loss"]
sample_weight = np.ones(shape=(len(y_train),))
sample_weight[y_train == 5] = 2.0
model = get_compiled_model()
R["sw"] = model.fit(x_train, y_train, sample_weight=sample_weight, batch_size=64, epochs=1, shuffle=False, verbose=0).history["loss"]
train_dataset = tf.data.Dataset.from_tensor_slices((x_train, y_train, sample_weight)).batch(64)
model = get_compiled_model()
R["swd"] = model.fit(train_dataset, epochs=1, verbose=0).history["loss"]
image_input = keras.Input(shape=(32, 32, 3), name="img_input")
timeseries_input = keras.Input(shape=(None, 10), name="ts_input")
x1 = layers.Conv2D(3, 3)(image_input)
x1 = layers.GlobalMaxPooling2D()(x1)
x2 = layers.Conv1D(3, 3)(timeseries_input)
x2 = layers.GlobalMaxPooling1D()(x2)
x = layers.concatenate([x1, x2])
score_output = layers.Dense(1, name="score_output")(x)
class_output = layers.Dense(5, name="class_output")(x)
model = keras.Model(inputs=[image_input, timeseries_input], outputs=[score_output, class_output])
keras.utils.plot_model(model, out("multi_input_and_output_model.png"), show_shapes=True)
model.compile(optimizer=keras.optimizers.RMSprop(1e-3), loss=[keras.losses.MeanSquaredError(), keras.losses.CategoricalCrossentropy()])
model.compile(optimizer=keras.optimizers.RMSprop(1e-3), loss=[keras.losses.MeanSquaredError(), keras.losses.CategoricalCrossentropy()], metrics=[[keras.metrics.MeanAbsolutePercentageError(), keras.metrics.MeanAbsoluteError()], [keras.metrics.CategoricalAccuracy()]])
model.compile(optimizer=keras.optimizers.RMSprop(1e-3), loss={"score_output": keras.losses.MeanSquaredError(), "class_output": keras.losses.CategoricalCrossentropy()}, metrics={"score_output": [keras.metrics.MeanAbsolutePercentageError(), keras.metrics.MeanAbsoluteError()], "class_output": [keras.metrics.CategoricalAccuracy()]}, loss_weights={"score_output": 2.0, "class_output": 1.0})
model.compile(optimizer=keras.optimizers.RMSprop(1e-3), loss=[None, keras.losses.CategoricalCrossentropy()])
model.compile(optimizer=keras.optimizers.RMSprop(1e-3), loss=[keras.losses.MeanSquaredError(), keras.losses.CategoricalCrossentropy(from_logits=True)])
same(model)
img_data, ts_data = data((100, 32, 32, 3)), data((100, 20, 10))
score_targets, class_targets = data((100, 1)), np.eye(5)[labels(100, 5)]
R["m1"] = model.fit([img_data, ts_data], [score_targets, class_targets], batch_size=32, epochs=1, shuffle=False, verbose=0).history["loss"]
R["m2"] = model.fit({"img_input": img_data, "ts_input": ts_data}, {"score_output": score_targets, "class_output": class_targets}, batch_size=32, epochs=1, shuffle=False, verbose=0).history["loss"]
train_dataset = tf.data.Dataset.from_tensor_slices(({"img_input": img_data, "ts_input": ts_data}, {"score_output": score_targets, "class_output": class_targets}))
train_dataset = train_dataset.batch(64)
R["m3"] = model.fit(train_dataset, epochs=1, verbose=0).history["loss"]
model = get_compiled_model()
callbacks = [keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=1e-2, patience=2, verbose=1)]
model.fit(x_train, y_train, epochs=20, batch_size=64, callbacks=callbacks, validation_split=0.2, shuffle=False, verbose=0)
class LossHistory(keras.callbacks.Callback):
    def on_train_begin(self, logs):
        self.per_batch_losses = []
    def on_batch_end(self, batch, logs):
        self.per_batch_losses.append(logs.get("loss"))
model = get_compiled_model()
lh = LossHistory()
model.fit(x_train, y_train, epochs=1, batch_size=64, callbacks=[lh], shuffle=False, verbose=0)
R["lh"] = lh.per_batch_losses
model = get_compiled_model()
callbacks = [keras.callbacks.ModelCheckpoint(filepath=out("mymodel_{epoch}.keras"), save_best_only=True, monitor="val_loss", verbose=1)]
model.fit(x_train, y_train, epochs=2, batch_size=64, callbacks=callbacks, validation_split=0.2, shuffle=False, verbose=0)
checkpoint_dir = out("ckpt")
if not os.path.exists(checkpoint_dir):
    os.makedirs(checkpoint_dir)
def make_or_restore_model():
    checkpoints = [checkpoint_dir + "/" + name for name in os.listdir(checkpoint_dir)]
    if checkpoints:
        latest_checkpoint = max(checkpoints, key=os.path.getctime)
        print("Restoring from", latest_checkpoint)
        return keras.models.load_model(latest_checkpoint)
    print("Creating a new model")
    return get_compiled_model()
for _ in range(2):
    model = make_or_restore_model()
    callbacks = [keras.callbacks.ModelCheckpoint(filepath=out("ckpt/model-loss={loss:.2f}.keras"), save_freq=10)]
    model.fit(x_train, y_train, epochs=1, callbacks=callbacks, verbose=0, shuffle=False)
initial_learning_rate = 0.1
lr_schedule = keras.optimizers.schedules.ExponentialDecay(initial_learning_rate, decay_steps=100000, decay_rate=0.96, staircase=True)
optimizer = keras.optimizers.RMSprop(learning_rate=lr_schedule)
