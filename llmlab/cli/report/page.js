// Shows the answers. Whatever a model wrote reaches the page by textContent alone, so that it stays text.
"use strict";
(() => {
  const PAGE = 60;
  const conversations = [];
  const answers = [];
  for (const block of document.querySelectorAll("script.data")) {
    const data = JSON.parse(block.textContent);
    conversations.push(...data.conversations);
    answers.push(...data.answers);
    block.remove();
  }

  const byId = (id) => document.getElementById(id);
  const [search, model, state, order] = ["search", "model", "state", "order"].map(byId);
  const list = byId("list");
  const more = byId("more");

  function add(parent, name, text, kind) {
    const element = document.createElement(name);
    if (text) element.textContent = text;
    if (kind) element.className = kind;
    parent.append(element);
    return element;
  }

  function choices(select, options) {
    for (const [value, text] of options) add(select, "option", text).value = value;
  }

  const names = (key) => [...new Set(answers.map((answer) => answer[key]))];
  choices(model, [["", "All models"], ...names("model").map((name) => [name, name])]);
  choices(state, [["", "All states"], ...names("state").map((name) => [name, name])]);
  const scores = new Set();
  for (const answer of answers) for (const name of Object.keys(answer.scores)) scores.add(name);
  const numbers = {
    "latency:-1": ["Slowest first", (answer) => answer.latency || null],
    "latency:1": ["Fastest first", (answer) => answer.latency || null],
    "cost:-1": ["Dearest first", (answer) => answer.cost],
  };
  for (const name of [...scores].sort((one, other) => (other === "quality") - (one === "quality") || one.localeCompare(other))) {
    numbers[`score:${name}:1`] = [`Lowest ${name} first`, (answer) => answer.scores[name] ?? null];
    numbers[`score:${name}:-1`] = [`Highest ${name} first`, (answer) => answer.scores[name] ?? null];
  }
  choices(order, [["", "By prompt"], ...Object.entries(numbers).map(([value, [text]]) => [value, text])]);

  function prompt(parent, conversation, open) {
    const details = add(parent, "details", "", "prompt");
    details.open = open;
    add(details, "summary", `${conversation.prompt} · row ${conversation.row + 1}`);
    for (const message of conversation.messages) {
      add(details, "div", message.role, "role");
      add(details, "p", message.text, "text");
    }
  }

  function card(parent, answer) {
    const article = add(parent, "article");
    article.id = `cell-${answer.cell}`;
    if (answer.state !== "done") add(article, "span", answer.state, "state");
    add(article, "h4", answer.model);
    const point = answer.point === "-" ? [] : [answer.point];
    add(article, "p", [...point, `repeat ${answer.repeat}`].join(" · "), "muted");
    if (answer.error) add(article, "p", answer.error, "text error");
    if (answer.text) add(article, "div", answer.text, "text").tabIndex = 0;
    else if (!answer.error) add(article, "p", "The answer is empty.", "empty");
    const given = Object.entries(answer.scores).map(([name, value]) => `${name} ${value}`);
    if (given.length) {
      const details = add(article, "details");
      const first = given.find((text) => text.startsWith("quality ")) ?? given[0];
      add(details, "summary", given.length > 1 ? `${first} and ${given.length - 1} more scores` : first);
      add(details, "p", given.join(" · "), "muted");
    }
    if (answer.brands.length) add(article, "p", `Brands: ${answer.brands.join(", ")}`, "muted");
    add(article, "p", answer.facts, "muted");
  }

  function chosen() {
    const wanted = search.value.trim().toLocaleLowerCase();
    const hit = (text) => text.toLocaleLowerCase().includes(wanted);
    const asked = wanted && conversations.map((each) => each.messages.some((message) => hit(message.text)));
    const found = answers.filter(
      (answer) =>
        (!model.value || answer.model === model.value) &&
        (!state.value || answer.state === state.value) &&
        (!wanted || asked[answer.in] || hit(answer.text) || hit(answer.error ?? "")),
    );
    if (!order.value) return found;
    const number = numbers[order.value][1];
    const sign = order.value.endsWith(":-1") ? -1 : 1;
    return found
      .map((answer) => [number(answer), answer])
      .sort(([one], [other]) => (one === null) - (other === null) || sign * (one - other))
      .map(([, answer]) => answer);
  }

  let found = [];
  let shown = 0;
  let group = null;
  let groupOf = -1;

  function showMore() {
    const until = Math.min(shown + PAGE, found.length);
    for (; shown < until; shown += 1) {
      const answer = found[shown];
      if (group === null || answer.in !== groupOf || order.value) {
        const section = add(list, "div", "", "conversation");
        prompt(section, conversations[answer.in], !order.value);
        group = add(section, "div", "", "answers");
        groupOf = answer.in;
      }
      card(group, answer);
    }
    more.hidden = shown === found.length;
    byId("count").textContent =
      found.length === answers.length
        ? `${answers.length.toLocaleString("en")} answers to ${conversations.length.toLocaleString("en")} prompts`
        : `${found.length.toLocaleString("en")} of ${answers.length.toLocaleString("en")} answers`;
  }

  function show() {
    found = chosen();
    shown = 0;
    group = null;
    list.replaceChildren();
    showMore();
  }

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(show, 150);
  });
  for (const select of [model, state, order]) select.addEventListener("change", show);
  more.addEventListener("click", showMore);
  show();
})();
