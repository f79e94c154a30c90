// The reference works without this: it adds a filter, copy buttons and this server's own address.
"use strict";

for (const place of document.querySelectorAll(".origin")) place.textContent = location.origin;

for (const button of document.querySelectorAll(".copy")) {
  if (!navigator.clipboard) break;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

const filter = document.getElementById("filter");
const lines = [...document.querySelectorAll("nav [data-for]")].map((line) => {
  const article = document.getElementById(line.dataset.for);
  const lead = article.querySelector(".lead").textContent;
  return { line, article, text: `${line.textContent} ${lead}`.toLowerCase() };
});

const show = () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const { line, article, text } of lines) {
    line.hidden = article.hidden = !words.every((word) => text.includes(word));
  }
  for (const room of document.querySelectorAll(".room")) {
    room.hidden = !room.querySelector("article:not([hidden]), [data-for]:not([hidden])");
  }
  document.getElementById("top").hidden = words.length > 0;
  document.getElementById("nothing").hidden = lines.some(({ line }) => !line.hidden);
};

filter.hidden = false;
filter.addEventListener("input", show);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input") || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  filter.focus();
});
