"""Writing your own callbacks: Keras's guide, with small data."""

def get_model():
    model = keras.Sequential()
    model.add(layers.Dense(1))
    model.compile(optimizer=keras.optimizers.RMSprop(learning_rate=0.1), loss="mean_squared_error", metrics=["mean_absolute_error"])
    return model
x_train, y_train = (data((1000, 784)) + 2) / 4, labels(1000, 10)
x_test, y_test = x_train[:1000], y_train[:1000]
log = []
class CustomCallback(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        log.append("Starting training; got log keys: {}".format(sorted(logs.keys())))
    def on_train_end(self, logs=None):
        log.append("Stop training; got log keys: {}".format(sorted(logs.keys())))
    def on_epoch_begin(self, epoch, logs=None):
        log.append("Start epoch {} of training; got log keys: {}".format(epoch, sorted(logs.keys())))
    def on_epoch_end(self, epoch, logs=None):
        log.append("End epoch {} of training; got log keys: {}".format(epoch, sorted(logs.keys())))
    def on_test_begin(self, logs=None):
        log.append("Start testing; got log keys: {}".format(sorted(logs.keys())))
    def on_test_end(self, logs=None):
        log.append("Stop testing; got log keys: {}".format(sorted(logs.keys())))
    def on_predict_begin(self, logs=None):
        log.append("Start predicting; got log keys: {}".format(sorted(logs.keys())))
    def on_predict_end(self, logs=None):
        log.append("Stop predicting; got log keys: {}".format(sorted(logs.keys())))
    def on_train_batch_begin(self, batch, logs=None):
        log.append("...Training: start of batch {}; got log keys: {}".format(batch, sorted(logs.keys())))
    def on_train_batch_end(self, batch, logs=None):
        log.append("...Training: end of batch {}; got log keys: {}".format(batch, sorted(logs.keys())))
    def on_test_batch_begin(self, batch, logs=None):
        log.append("...Evaluating: start of batch {}; got log keys: {}".format(batch, sorted(logs.keys())))
    def on_test_batch_end(self, batch, logs=None):
        log.append("...Evaluating: end of batch {}; got log keys: {}".format(batch, sorted(logs.keys())))
    def on_predict_batch_begin(self, batch, logs=None):
        log.append("...Predicting: start of batch {}; got log keys: {}".format(batch, sorted(logs.keys())))
    def on_predict_batch_end(self, batch, logs=None):
        log.append("...Predicting: end of batch {}; got log keys: {}".format(batch, sorted(logs.keys())))
model = get_model()
model.build((None, 784)); same(model)
model.fit(x_train, y_train, batch_size=128, epochs=1, verbose=0, validation_split=0.5, callbacks=[CustomCallback()], shuffle=False)
res = model.evaluate(x_test, y_test, batch_size=128, verbose=0, callbacks=[CustomCallback()])
res = model.predict(x_test, batch_size=128, callbacks=[CustomCallback()], verbose=0)
R["log"] = log
losses = []
class LossAndErrorPrintingCallback(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        losses.append(logs["loss"])
        print("Up to batch {}, the average loss is {:7.2f}.".format(batch, logs["loss"]))
    def on_test_batch_end(self, batch, logs=None):
        print("Up to batch {}, the average loss is {:7.2f}.".format(batch, logs["loss"]))
    def on_epoch_end(self, epoch, logs=None):
        print("The average loss for epoch {} is {:7.2f} and mean absolute error is {:7.2f}.".format(epoch, logs["loss"], logs["mean_absolute_error"]))
model = get_model()
model.build((None, 784)); same(model)
model.fit(x_train, y_train, batch_size=128, epochs=2, verbose=0, callbacks=[LossAndErrorPrintingCallback()], shuffle=False)
R["losses"] = losses
class EarlyStoppingAtMinLoss(keras.callbacks.Callback):
    def __init__(self, patience=0):
        super().__init__()
        self.patience = patience
        self.best_weights = None
    def on_train_begin(self, logs=None):
        self.wait = 0
        self.stopped_epoch = 0
        self.best = np.inf
    def on_epoch_end(self, epoch, logs=None):
        current = logs.get("loss")
        if np.less(current, self.best):
            self.best = current
            self.wait = 0
            self.best_weights = self.model.get_weights()
        else:
            self.wait += 1
            if self.wait >= self.patience:
                self.stopped_epoch = epoch
                self.model.stop_training = True
                print("Restoring model weights from the end of the best epoch.")
                self.model.set_weights(self.best_weights)
    def on_train_end(self, logs=None):
        if self.stopped_epoch > 0:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
model = get_model()
model.build((None, 784)); same(model)
model.fit(x_train, y_train, batch_size=64, epochs=30, verbose=0, callbacks=[LossAndErrorPrintingCallback(), EarlyStoppingAtMinLoss()], shuffle=False)
class CustomLearningRateScheduler(keras.callbacks.Callback):
    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule
    def on_epoch_begin(self, epoch, logs=None):
        if not hasattr(self.model.optimizer, "learning_rate"):
            raise ValueError('Optimizer must have a "learning_rate" attribute.')
        lr = self.model.optimizer.learning_rate
        scheduled_lr = self.schedule(epoch, lr)
        self.model.optimizer.learning_rate = scheduled_lr
        print(f"\nEpoch {epoch}: Learning rate is {float(np.array(scheduled_lr))}.")
LR_SCHEDULE = [(3, 0.05), (6, 0.01), (9, 0.005), (12, 0.001)]
def lr_schedule(epoch, lr):
    if epoch < LR_SCHEDULE[0][0] or epoch > LR_SCHEDULE[-1][0]:
        return lr
    for i in range(len(LR_SCHEDULE)):
        if epoch == LR_SCHEDULE[i][0]:
            return LR_SCHEDULE[i][1]
    return lr
model = get_model()
model.build((None, 784)); same(model)
h = model.fit(x_train, y_train, batch_size=64, epochs=15, verbose=0, callbacks=[LossAndErrorPrintingCallback(), CustomLearningRateScheduler(lr_schedule)], shuffle=False).history
R["sched"] = np.array(h["loss"]) / h["loss"][0]
