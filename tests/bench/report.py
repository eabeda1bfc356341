"""Tables: medians, ranges over the rounds, ratios against the better peer, as text or Markdown."""
import statistics


class Column:
    """better: "low", "high" or None (not compared)."""

    def __init__(self, key, label, better=None, digits=1, scale=1.0):
        self.key, self.label, self.better = key, label, better
        self.digits, self.scale = digits, scale

    def number(self, value):
        return "{:,.{}f}".format(value * self.scale, self.digits)


class Table:
    """One row of the issue's table: a line per proxy, a column per figure, a value per round."""

    def __init__(self, name, title, columns):
        self.name, self.title, self.columns = name, title, columns
        self.values = {}  # proxy -> key -> list
        self.notes = []
        self.reached = []  # (text, bool)

    def add(self, proxy, **figures):
        for key, value in figures.items():
            self.values.setdefault(proxy, {}).setdefault(key, []).append(value)

    def median(self, proxy, key):
        values = self.values.get(proxy, {}).get(key)
        return statistics.median(values) if values else None

    def worst(self, proxy, key):
        return max(self.values[proxy][key])

    def better_peer(self, column):
        medians = [self.median(p, column.key) for p in self.values if p in ("nginx", "haproxy")]
        medians = [m for m in medians if m is not None]
        if not medians or column.better is None:
            return None
        return min(medians) if column.better == "low" else max(medians)

    def ratio(self, column):
        ours, theirs = self.median("chmux", column.key), self.better_peer(column)
        return ours / theirs if ours is not None and theirs else None

    def reach(self, text, ok):
        self.reached.append((text, bool(ok)))

    def reach_no_worse(self, keys):
        """chmux against the better peer in each of the columns, noise included."""
        for column in self.columns:
            ratio = self.ratio(column)
            if column.key not in keys or ratio is None:
                continue
            ok = ratio <= 1 if column.better == "low" else ratio >= 1
            self.reach("%s no worse than the better peer: ratio %.3f" % (column.label, ratio), ok)

    def _cell(self, proxy, column):
        values = self.values[proxy].get(column.key)
        if not values:
            return "-"
        text = column.number(statistics.median(values))
        if len(values) > 1 and min(values) != max(values):
            text += " (%s-%s)" % (column.number(min(values)), column.number(max(values)))
        return text

    def lines(self):
        head = [self.name] + [c.label for c in self.columns]
        rows = [[p] + [self._cell(p, c) for c in self.columns] for p in self.values]
        ratios = [self.ratio(c) for c in self.columns]
        if any(r is not None for r in ratios):
            rows.append(["chmux / better peer"] +
                        ["" if r is None else "%.2f" % r for r in ratios])
        return head, rows

    def markdown(self):
        head, rows = self.lines()
        out = ["### " + self.title, "", "| " + " | ".join(head) + " |",
               "|---" + "|---:" * len(self.columns) + "|"]
        out += ["| " + " | ".join(r) + " |" for r in rows]
        out.append("")
        out += ["- " + n for n in self.notes]
        out += ["- %s: **%s**" % (text, "reached" if ok else "not reached")
                for text, ok in self.reached]
        return "\n".join(out) + "\n"

    def text(self):
        head, rows = self.lines()
        widths = [max(len(r[i]) for r in [head] + rows) for i in range(len(head))]
        out = ["", self.title]
        for r in [head] + rows:
            out.append("  ".join([r[0].ljust(widths[0])] +
                                 [c.rjust(w) for c, w in zip(r[1:], widths[1:])]))
        out += ["  note: " + n for n in self.notes]
        out += ["  %s %s" % ("reached    " if ok else "NOT REACHED", text)
                for text, ok in self.reached]
        return "\n".join(out)

    def raw(self):
        return {"title": self.title, "values": self.values, "notes": self.notes,
                "reached": self.reached}
