"""`common.trainer`: a loop over mini-batches that prints and records how a network learns.

Saito, Deep Learning from Scratch, chapters 6 to 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core.book.common.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "Trainer", "np"]

Array = npt.NDArray[Any]

_OPTIMIZERS: dict[str, Any] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "adam": Adam,
}
_SLOW_RATE = {"lr": 0.01}


class Trainer:
    """Trains `network`, which has params, gradient(x, t), loss(x, t) and accuracy(x, t).

    Parameters
    ----------
    x_train, t_train, x_test, t_test : arrays, samples along the first axis
    epochs : int, default 20. mini_batch_size : int, default 100, drawn with replacement
    optimizer : 'sgd', 'momentum', 'nesterov', 'adagrad', 'rmsprop' or 'adam', in any case
    optimizer_param : its arguments
    evaluate_sample_num_per_epoch : accuracies on so many first samples; all by default
    verbose : whether losses and accuracies are printed

    Attributes
    ----------
    train_loss_list : the loss after every update
    train_acc_list, test_acc_list : accuracies after the first update of every epoch
    """

    def __init__(
        self,
        network: Any,
        x_train: Array,
        t_train: Array,
        x_test: Array,
        t_test: Array,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: dict[str, Any] = _SLOW_RATE,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
    ) -> None:
        self.network, self.verbose = network, verbose
        self.x_train, self.t_train = x_train, t_train
        self.x_test, self.t_test = x_test, t_test
        self.epochs, self.batch_size = epochs, mini_batch_size
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.optimizer = _OPTIMIZERS[optimizer.lower()](**optimizer_param)
        self.train_size = len(x_train)
        #: Not rounded: an epoch ends only where the batches of one fill the training set exactly.
        self.iter_per_epoch = max(self.train_size / mini_batch_size, 1)
        self.max_iter = int(epochs * self.iter_per_epoch)
        self.current_iter = self.current_epoch = 0
        self.train_loss_list: list[Any] = []
        self.train_acc_list: list[Any] = []
        self.test_acc_list: list[Any] = []

    def train_step(self) -> None:
        """One update, and the accuracies where an epoch begins."""
        chosen = np.random.choice(self.train_size, self.batch_size)  # noqa: NPY002
        x, t = self.x_train[chosen], self.t_train[chosen]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        loss = self.network.loss(x, t)
        self.train_loss_list.append(loss)
        self._say(f"train loss:{loss}")
        if self.current_iter % self.iter_per_epoch == 0:
            self._evaluate()
        self.current_iter += 1

    def _evaluate(self) -> None:
        self.current_epoch += 1
        first = slice(self.evaluate_sample_num_per_epoch)
        train_acc = self.network.accuracy(self.x_train[first], self.t_train[first])
        test_acc = self.network.accuracy(self.x_test[first], self.t_test[first])
        self.train_acc_list.append(train_acc)
        self.test_acc_list.append(test_acc)
        self._say(f"=== epoch:{self.current_epoch}, train acc:{train_acc}, test acc:{test_acc} ===")

    def train(self) -> None:
        """All updates, and the accuracy on all test samples."""
        for _ in range(self.max_iter):
            self.train_step()
        test_acc = self.network.accuracy(self.x_test, self.t_test)
        self._say("=============== Final Test Accuracy ===============")
        self._say(f"test acc:{test_acc}")

    def _say(self, line: str) -> None:
        if self.verbose:
            print(line)
