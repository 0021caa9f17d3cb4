"""Makes the sample of `peers demo`: `python bench/make_trades.py > peers/cli/data/trades.csv`.

Trades that look like somebody's journal, from a fixed seed, so that the file can be made again byte for byte: prices
follow a random walk per symbol, a fifth of the trades carry a note, a few cells are empty.
"""

import csv
import random
import sys
from datetime import datetime, timedelta

ROWS = 5000
_PRICES = {
    "AAPL": 187.2,
    "AMD": 121.4,
    "BTC-USD": 42_150.0,
    "EURUSD": 1.0942,
    "MSFT": 371.9,
    "NVDA": 49.5,
    "SPY": 470.1,
}
_ACCOUNTS = ("main", "main", "main", "paper", "retirement")
_NOTES = (
    "breakout, held to plan", "entered too early", "news trade", "scaled out in thirds", "stopped out",
    "second try, same level", 'felt like "revenge", small size', "trend day", "closed before the bell",
)  # fmt: skip


def rows(seed: int = 20_240_102) -> list[list[str]]:
    chance = random.Random(seed)
    prices = dict(_PRICES)
    now = datetime(2024, 1, 2, 14, 30)
    made = []
    for ticket in range(1, ROWS + 1):
        now += timedelta(seconds=chance.randint(5, 3600))
        symbol = chance.choice(sorted(prices))
        prices[symbol] *= 1 + chance.gauss(0, 0.004)
        digits = 4 if prices[symbol] < 10 else 2
        quantity = chance.choice((1, 5, 10, 25, 50, 100, 250))
        fee = f"{max(0.35, quantity * 0.005):.2f}" if symbol != "BTC-USD" else ""
        note = chance.choice(_NOTES) if chance.random() < 0.2 else ""
        side = chance.choice(("buy", "sell"))
        price = f"{prices[symbol]:.{digits}f}"
        account = chance.choice(_ACCOUNTS)
        made.append([str(ticket), f"{now:%Y-%m-%dT%H:%M:%SZ}", account, symbol, side, str(quantity), price, fee, note])
    return made


def main() -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["ticket", "time", "account", "symbol", "side", "qty", "price", "fee", "note"])
    writer.writerows(rows())


if __name__ == "__main__":
    main()
