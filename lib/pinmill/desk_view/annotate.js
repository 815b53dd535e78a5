// The browser's side of pinmill.widget: shows what Python sends, and sends what people do. It keeps no labels.

const DEBOUNCE = 150 // ms without typing, until an edited text is scored
const PATIENCE = { hello: 30, sign_in: 30 } // s until the kernel is taken for gone; 5 for all else
const SILENT = "The kernel does not answer. Nothing is lost: what was saved is saved. Try again, or reload the page."
const KEYS = [
  ["1 – 9", "choose a label"],
  ["s", "skip: take no side"],
  ["u", "undo the last label or skip"],
  ["n", "write a note to this label"],
  ["e", "edit the text"],
  ["↑ ↓", "scroll a long text"],
  ["Esc", "leave a text box, so that keys work again"],
  ["?", "show or hide this help"],
]
const TOOLS = [
  ["skip", "Skip", "s"],
  ["undo", "Undo", "u"],
  ["note", "Note", "n"],
  ["help", "Help", "?"],
]
let views = 0

/** An element with properties, attributes (`data-…`, `aria-…`, `for`) and children; texts stay texts. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (/^(data|aria)-|^(for|role|list)$/.test(name)) node.setAttribute(name, value)
    else node[name] = value
  }
  node.append(...children)
  return node
}

/** A label or value as people read it. */
const read = (value) => (typeof value === "string" ? value : JSON.stringify(value))
const percent = (share) => `${Math.round(100 * share)} %`
const isBox = (node) => node?.matches?.("input, textarea, select, [contenteditable=true]") ?? false

/** The key that is meant: digits and letters also on keyboards where they need Shift or another script. */
function readKey(event) {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)
  if (digit && !event.shiftKey) return digit[1]
  if (/^[\x20-\x7e]$/.test(event.key)) return event.key.toLowerCase()
  const letter = /^Key([A-Z])$/.exec(event.code)
  return letter && event.key.length === 1 ? letter[1].toLowerCase() : event.key
}

/** The spans that an edit of `before` to `after` leaves as they were, at their new places. */
function moveSpans(spans, before, after) {
  const most = Math.min(before.length, after.length)
  let head = 0
  while (head < most && before[head] === after[head]) head++
  let tail = 0
  while (tail < most - head && before.at(-1 - tail) === after.at(-1 - tail)) tail++
  const shift = after.length - before.length
  const stays = spans.filter((span) => span.end <= head)
  const moves = spans.filter((span) => span.start >= before.length - tail && span.end > head)
  return [...stays, ...moves.map((span) => ({ ...span, start: span.start + shift, end: span.end + shift }))]
}

/** `text` as nodes, with what pushes the score marked: `--push` is 0 to 1 of the strongest. */
function markText(text, spans) {
  const strongest = Math.max(...spans.map((span) => Math.abs(span.push)))
  const nodes = []
  let at = 0
  for (const { start, end, push } of spans) {
    const mark = make("mark", { className: push > 0 ? "toward" : "against" }, text.slice(start, end))
    mark.style.setProperty("--push", Math.abs(push) / strongest)
    nodes.push(text.slice(at, start), mark)
    at = end
  }
  return [...nodes, text.slice(at)]
}

function describeProgress({ open, done, own, today, skipped, pace, agreement, compared }) {
  const told = [`${today} today`, `${own} in all`]
  if (skipped) told.push(`${skipped} skipped`)
  if (pace) told.push(`${Math.round(pace)} an hour`)
  if (agreement != null) told.push(`${Math.round(100 * agreement)} % as others said, of ${compared}`)
  return [told.join(" · "), `${open.toLocaleString()} to go`, done / Math.max(1, done + open)]
}

function render({ model, el }) {
  const view = `${Date.now().toString(36)}-${++views}-${Math.random().toString(36).slice(2)}`
  const isAlone = "voila" in document.body.dataset || !document.querySelector(".jp-NotebookPanel, [data-notebook]")
  let screen = { state: "loading", item: null }
  let pending = null // the message that waits for its answer, and its timer
  let failed = null // the message that "Try again" sends
  let sent = 0
  let scored = "" // the request for the score of the text as it is
  let spans = []
  let marked = "" // the text that they belong to
  let shownAt = 0
  let pressedAt = 0
  let typing = 0

  const part = {
    workflow: make("h2", { className: "pinmill-workflow" }),
    annotator: make("span", { className: "pinmill-annotator" }),
    progress: make("p", { className: "pinmill-progress" }),
    togo: make("p", { className: "pinmill-togo" }),
    bar: make("div", { className: "pinmill-bar", "aria-hidden": "true" }),
    guideline: make("details", { className: "pinmill-guideline", open: true }),
    login: make("form", { className: "pinmill-login", noValidate: true }),
    paper: make("div", { className: "pinmill-paper" }),
    marks: make("div", { className: "pinmill-marks", "aria-hidden": "true" }),
    text: make("textarea", { className: "pinmill-text", spellcheck: false, rows: 1, "aria-label": "Text to label" }),
    record: make("table", { className: "pinmill-record" }),
    edited: make("p", { className: "pinmill-edited" }),
    said: make("ul", { className: "pinmill-said" }),
    score: make("div", { className: "pinmill-score" }),
    legend: make("p", { className: "pinmill-legend" }),
    labels: make("div", { className: "pinmill-labels", role: "group", "aria-label": "Labels" }),
    amount: make("input", { className: "pinmill-amount", type: "number", step: "any", placeholder: "Type an amount, then Enter", "aria-label": "Amount" }),
    note: make("input", { className: "pinmill-note", maxLength: 2000, placeholder: "A note to this label" }),
    tools: make("div", { className: "pinmill-tools" }),
    status: make("p", { className: "pinmill-status", "aria-live": "polite" }),
    again: make("button", { type: "button", className: "pinmill-again", "data-do": "again" }),
    empty: make("p", { className: "pinmill-empty" }),
    help: make("section", { className: "pinmill-help", "aria-label": "Keys", hidden: true }),
  }
  part.note.setAttribute("aria-label", "Note")
  part.paper.append(part.marks, part.text)
  const save = make("button", { type: "button", "data-do": "save", className: "pinmill-save" }, "Save")
  const buttons = Object.fromEntries(
    TOOLS.map(([name, title, key]) => [
      name,
      make("button", { type: "button", "data-do": name, "aria-keyshortcuts": key }, title, make("kbd", {}, key)),
    ]),
  )
  buttons.note.setAttribute("aria-expanded", "false")
  buttons.help.setAttribute("aria-expanded", "false")
  part.tools.append(...Object.values(buttons))
  part.help.append(
    make("dl", {}, ...KEYS.map(([key, does]) => make("div", {}, make("dt", {}, make("kbd", {}, key)), make("dd", {}, does)))),
  )
  const head = make("div", { className: "pinmill-head" }, part.workflow, part.annotator, part.progress, part.togo, part.bar)
  const task = make("div", { className: "pinmill-task" }, part.said, part.paper, part.record, part.edited, part.legend, part.score)
  const act = make("div", { className: "pinmill-act" }, part.labels, part.note)
  const foot = make("div", { className: "pinmill-foot" }, part.tools, make("div", { className: "pinmill-tell" }, part.status, part.again))
  const root = make(
    "div",
    { className: "pinmill-annotate", tabIndex: 0, role: "group", "aria-label": "Labelling", "data-lm-suppress-shortcuts": "true" },
    head, part.guideline, part.login, task, part.empty, make("div", { className: "pinmill-dock" }, act, foot), part.help,
  )
  root.classList.toggle("pinmill-alone", isAlone)
  el.append(root)

  /** Send a message that is answered by a screen; nothing else is sent until then. Sent again, it keeps its request. */
  function ask(message) {
    clearTimeout(pending?.timer)
    clearTimeout(typing)
    const request = message.request ?? `${view}-${++sent}`
    failed = null
    const timer = setTimeout(() => stop(SILENT), 1000 * (PATIENCE[message.do] ?? 5))
    pending = { request, message: { ...message, request }, timer }
    root.setAttribute("aria-busy", "true")
    post(pending.message)
  }

  function post(message) {
    try {
      model.send(message)
    } catch {
      stop(SILENT)
    }
  }

  /** Stop waiting, and say why: the text stays, and the message can be sent again. */
  function stop(problem) {
    clearTimeout(pending?.timer)
    failed = pending?.message ?? failed ?? { do: "hello" }
    pending = null
    root.removeAttribute("aria-busy")
    if (screen.state !== "asking") root.dataset.state = "error"
    tell("", problem)
  }

  function tell(said, problem) {
    part.status.textContent = problem || said
    part.status.classList.toggle("pinmill-problem", Boolean(problem))
    const isEmpty = root.dataset.state === "empty"
    part.again.hidden = !(isEmpty || (problem && root.dataset.state === "error"))
    part.again.textContent = isEmpty ? "Look again" : "Try again"
  }

  function show(message) {
    const before = screen.item?.id ?? ""
    const isOurs = String(message.request).startsWith(`${view}-`) // also when it comes too late
    const isAnswer = isOurs && message.request === pending?.request
    const asked = isAnswer ? pending.message : null
    if (isAnswer) {
      clearTimeout(pending.timer)
      pending = null
      root.removeAttribute("aria-busy")
    }
    if (isOurs) failed = message.problem ? (asked ?? failed) : null
    screen = message
    const { item } = screen
    const isProblem = Boolean(message.problem)
    root.dataset.state = screen.state === "working" && isProblem && failed ? "error" : screen.state
    root.dataset.id = item?.id ?? ""
    showHead()
    showLogin()
    if (item && item.id !== before) showItem(item)
    showLabels()
    if (isOurs || isProblem) tell(message.said, message.problem)
    else if (screen.state === "empty" || root.dataset.state !== "error") tell(part.status.textContent, "")
    part.empty.textContent = screen.state === "empty" ? "All done: there is nothing left to label." : ""
    if (screen.state === "loading") part.empty.textContent = "Fetching what to label …"
    if (asked && item && item.id !== before) {
      performance.measure("pinmill-next", { start: pressedAt, end: performance.now() })
    }
    if (asked || before !== (item?.id ?? "")) focus()
  }

  /** Take the focus, unless somebody types elsewhere on the page, or labels on another screen of it. */
  function focus() {
    const at = document.activeElement
    if (at && at !== document.body && !root.contains(at) && (isBox(at) || at.closest("dialog, .cm-editor, .pinmill-annotate"))) return
    const box = screen.state === "asking" ? part.login.querySelector("input") : null
    ;(box ?? root).focus({ preventScroll: true })
  }

  function showHead() {
    const { workflow, annotator, progress, guideline } = screen
    part.workflow.textContent = workflow ?? ""
    part.annotator.textContent = annotator ?? ""
    head.hidden = !workflow
    const [told, togo, share] = progress ? describeProgress(progress) : ["", "", 0]
    part.progress.textContent = told
    part.togo.textContent = togo
    part.bar.style.setProperty("--done", share)
    if (part.guideline.dataset.text !== (guideline ?? "")) {
      part.guideline.dataset.text = guideline ?? ""
      const text = make("p", {}, guideline ?? "")
      part.guideline.replaceChildren(make("summary", {}, "Guideline"), text)
      part.guideline.open = !progress?.own
    }
    part.guideline.hidden = !guideline
  }

  function showLogin() {
    part.login.hidden = screen.state !== "asking"
    if (screen.state !== "asking" || part.login.childElementCount) return
    const isToken = screen.ask === "token"
    const box = make("input", {
      type: isToken ? "password" : "text",
      name: isToken ? "token" : "name",
      autocomplete: isToken ? "current-password" : "username",
      required: true,
    })
    const caption = isToken ? "Your token" : "Your name"
    const why = isToken ? "It says who you are. Whoever runs this gave it to you." : "Your labels are kept under it."
    part.login.append(
      make("h2", {}, "Who labels?"),
      make("label", {}, make("span", {}, caption), box),
      make("p", {}, why),
      make("button", { type: "submit" }, "Start"),
    )
  }

  function showItem(item) {
    shownAt = performance.now()
    clearTimeout(typing)
    scored = ""
    part.paper.hidden = item.columns !== null
    part.record.hidden = item.columns === null
    part.note.value = ""
    openNote(false)
    part.amount.value = ""
    if (item.columns === null) {
      part.text.value = item.text
      drawMarks(item.spans, item.text)
      part.paper.scrollTop = 0
    } else showRecord(item.columns)
    part.edited.textContent = ""
    part.said.replaceChildren(...item.said.map(([who, label]) => make("li", {}, make("b", {}, who), ` said ${label}`)))
    part.said.hidden = !item.said.length
    showScore(item.prediction)
    showLegend(item)
  }

  function showRecord(columns) {
    const strongest = Math.max(...columns.map(([, , push]) => Math.abs(push))) || 1
    const rows = columns.map(([name, value, push]) => {
      const shown = make("span", {}, value === null || value === "" ? "–" : read(value))
      if (push) {
        shown.className = push > 0 ? "toward" : "against"
        shown.style.setProperty("--push", Math.abs(push) / strongest)
        shown.title = push > 0 ? "pushes toward it" : "pushes against it"
      }
      return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, shown))
    })
    part.record.replaceChildren(make("tbody", {}, ...rows))
  }

  function drawMarks(found, text) {
    spans = found
    marked = text
    part.marks.replaceChildren(...markText(text, spans), "\u200b") // so that a last empty line has its height
  }

  function showLegend({ spans: found, columns, prediction }) {
    const pushes = columns ? columns.some(([, , push]) => push) : found.length
    const toward = prediction?.label ?? "more"
    part.legend.hidden = !(pushes && prediction)
    part.legend.replaceChildren(
      make("span", { className: "toward" }, `speaks for ${toward}`),
      make("span", { className: "against" }, prediction?.label ? "speaks against it" : "speaks for less"),
    )
  }

  /** The model's probability of each label as bars; without probabilities what it says, without a model nothing. */
  function showScore(prediction) {
    part.score.hidden = !prediction
    if (!prediction) return part.score.replaceChildren()
    if (!prediction.shares) {
      const amount = Number(prediction.value?.toPrecision(4)).toLocaleString()
      const said = prediction.label ?? amount
      return part.score.replaceChildren(make("p", {}, "The model says ", make("b", {}, said)))
    }
    const kept = part.score.querySelectorAll("[data-label]")
    if (kept.length !== screen.labels.length) {
      part.score.replaceChildren(
        ...screen.labels.map((label) =>
          make("div", { "data-label": JSON.stringify(label) }, make("span", {}, read(label)), make("i"), make("output")),
        ),
      )
    }
    part.score.querySelectorAll("[data-label]").forEach((row, place) => {
      const share = prediction.shares[place]
      row.style.setProperty("--share", share ?? 0)
      row.querySelector("output").textContent = share === null ? "–" : percent(share)
      row.classList.toggle("pinmill-most", read(screen.labels[place]) === prediction.label)
    })
  }

  function showLabels() {
    const { labels } = screen
    act.hidden = !screen.item
    for (const name of ["skip", "note"]) buttons[name].hidden = !screen.item
    part.tools.hidden = !labels && labels !== null
    if (labels === undefined || part.labels.dataset.labels === JSON.stringify(labels)) return
    part.labels.dataset.labels = JSON.stringify(labels)
    if (labels === null) return part.labels.replaceChildren(part.amount, save)
    const keyed = labels.length <= 9
    part.labels.replaceChildren(
      ...labels.map((label, place) => {
        const button = make("button", { type: "button", "data-label": JSON.stringify(label) }, make("span", {}, read(label)))
        if (keyed) {
          button.setAttribute("aria-keyshortcuts", place + 1)
          button.prepend(make("kbd", {}, String(place + 1)))
        }
        return button
      }),
    )
  }

  const isEdited = () => screen.item?.columns === null && part.text.value !== screen.item.text
  const about = () => ({
    id: screen.item.id,
    note: part.note.value.trim(),
    seconds: Math.min(86400, (performance.now() - shownAt) / 1000),
  })

  function label(value, button) {
    if (pending || !screen.item) return
    pressedAt = performance.now()
    button?.classList.add("pinmill-chosen")
    setTimeout(() => button?.classList.remove("pinmill-chosen"), 180)
    ask({ do: "label", label: value, text: isEdited() ? part.text.value : null, ...about() })
  }

  function saveAmount() {
    if (Number.isFinite(part.amount.valueAsNumber)) label(part.amount.valueAsNumber, save)
    else {
      tell("Type a number first.", "")
      part.amount.focus()
    }
  }

  function openNote(isOpen) {
    part.note.hidden = !isOpen
    buttons.note.setAttribute("aria-expanded", isOpen)
  }

  const actions = {
    skip() {
      if (pending || !screen.item) return
      pressedAt = performance.now()
      ask({ do: "skip", ...about() })
    },
    undo() {
      if (pending || !screen.workflow) return
      pressedAt = performance.now()
      ask({ do: "undo" })
    },
    note() {
      if (!screen.item) return
      openNote(part.note.hidden || !part.note.value)
      part.note.focus()
    },
    help() {
      part.help.hidden = !part.help.hidden
      buttons.help.setAttribute("aria-expanded", !part.help.hidden)
      part.help.scrollIntoView({ block: "nearest" })
    },
    save: saveAmount,
    again: () => ask(failed ?? { do: "hello" }),
  }

  /** What a key does while no text box has the focus; false: nothing. */
  function press(key) {
    const tool = TOOLS.find(([, , each]) => each === key)
    if (tool) actions[tool[0]]()
    else if (key === "e" && !part.paper.hidden && screen.item) part.text.focus()
    else if (/^[1-9]$/.test(key) && Array.isArray(screen.labels)) {
      const button = part.labels.querySelector(`[aria-keyshortcuts="${key}"]`)
      if (button) label(screen.labels[key - 1], button)
    } else if (/^(Arrow|Page)(Up|Down)$/.test(key) && part.paper.scrollHeight > part.paper.clientHeight) {
      const far = key.startsWith("Page") ? 0.9 * part.paper.clientHeight : 60
      part.paper.scrollBy({ top: key.endsWith("Up") ? -far : far })
    } else return false
    return true
  }

  root.addEventListener("keydown", (event) => {
    event.stopPropagation() // so that JupyterLab's command mode sees no key
    if (event.isComposing) return
    const inBox = isBox(event.target)
    if (event.key === "Escape") {
      event.preventDefault()
      if (!inBox && !part.help.hidden) actions.help()
      return root.focus({ preventScroll: true })
    }
    if (event.ctrlKey || event.altKey || event.metaKey) return
    if (event.key === "Enter" && (event.target === part.note || event.target === part.amount)) {
      event.preventDefault()
      if (event.repeat) return
      root.focus({ preventScroll: true })
      if (event.target === part.amount) saveAmount()
      return
    }
    if (inBox) return
    const key = readKey(event)
    if (screen.labels === null && screen.item && /^[\d.-]$/.test(key)) return part.amount.focus() // which takes the key
    if (event.repeat && !/^(Arrow|Page)/.test(key)) return
    if (press(key)) event.preventDefault()
  })
  for (const name of ["keypress", "keyup"]) root.addEventListener(name, (event) => event.stopPropagation())

  root.addEventListener("click", (event) => {
    const button = event.target.closest("button")
    if (isBox(event.target) || event.target.closest("summary, form")) return
    if (button && event.detail > 1) return // the second click of a double click
    if (button?.dataset.label) label(JSON.parse(button.dataset.label), button)
    else if (button) actions[button.dataset.do]()
    const isSelected = String(window.getSelection()).length > 0
    if (!isSelected && !isBox(document.activeElement)) root.focus({ preventScroll: true })
  })

  part.login.addEventListener("submit", (event) => {
    event.preventDefault()
    const given = part.login.querySelector("input").value
    if (pending) return
    if (!given.trim()) return tell("", "Type it first.")
    tell("", "")
    ask({ do: "sign_in", given })
  })

  part.text.addEventListener("input", () => {
    const text = part.text.value
    drawMarks(moveSpans(spans, marked, text), text)
    part.edited.textContent = isEdited() ? "Edited: your label is kept for this text, and the original is skipped." : ""
    clearTimeout(typing)
    scored = ""
    if (!screen.item?.prediction) return
    typing = setTimeout(() => {
      scored = `${view}-${++sent}`
      post({ do: "score", request: scored, id: screen.item.id, text })
    }, DEBOUNCE)
  })

  function showLateScore({ prediction, spans: found }) {
    drawMarks(found, part.text.value)
    showScore(prediction)
    showLegend({ spans: found, columns: null, prediction })
  }

  model.on("msg:custom", (message) => {
    if (message.do === "show") show(message)
    else if (message.do === "score" && message.request === scored) showLateScore(message)
  })
  model.on("comm_live_update", () => ask({ do: "hello" })) // the kernel went or came back
  model.on("comm:close", () => stop(SILENT))
  show({ ...screen, said: "", problem: "" })
  ask({ do: "hello" })
  return () => clearTimeout(pending?.timer)
}

export default { render }
