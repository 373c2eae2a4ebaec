# Python's share of the bench: objects, dictionaries, strings, a sieve.
class Account:
    def __init__(self, name):
        self.name = name
        self.balance = 0

    def add(self, amount):
        self.balance += amount
        return self


accounts = {}
for i in range(20000):
    name = "a%d" % (i * 7 % 101)
    accounts.setdefault(name, Account(name)).add(i % 13)
print(sum(a.balance for a in accounts.values()))
words = [("%x" % (i * 2654435761 % 65536)) for i in range(5000)]
print(len(set(words)), "".join(sorted(words)[:5]))
flags = [True] * 20000
for i in range(2, 141):
    if flags[i]:
        flags[i * i::i] = [False] * len(flags[i * i::i])
print(sum(flags) - 2)
