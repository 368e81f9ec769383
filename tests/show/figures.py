"""What a figure shows, as a test asks for it."""


def axes_of(figure, label):
    return next(axes for axes in figure.axes if axes.get_label() == label)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def header(figure):
    return [text.get_text() for text in figure.texts]


def lines(axes, label):
    return [line for line in axes.lines if line.get_label() == label]


def legend(figure):
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def boxes(figure):
    """The extent of every visible text, with its own background, in pixels."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    found = [*figure.texts]
    for axes in figure.axes:
        found += axes.texts
        if axes.axison:
            found += [axes.xaxis.label, axes.yaxis.label]
            for axis in (axes.xaxis, axes.yaxis):
                low, high = axis.get_view_interval()
                ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
                found += [t.label1 for t in ticks if t.label1.get_visible()]
    for box in figure.legends:
        found += box.get_texts()
    return [
        (t.get_text(), (t.get_bbox_patch() or t).get_window_extent(renderer))
        for t in found
        if t.get_text()
    ]


def overlapping(figure):
    """The texts that leave the figure, and the pairs that overlap."""
    width, height = figure.canvas.get_width_height()
    found = boxes(figure)
    wrong = [
        text for text, box in found if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height
    ]
    for index, (text, box) in enumerate(found):
        wrong += [
            (text, other_text)
            for other_text, other in found[index + 1 :]
            if box.x1 > other.x0 and other.x1 > box.x0 and box.y1 > other.y0 and other.y1 > box.y0
        ]
    return wrong
