// SPDX-License-Identifier: Apache-2.0
// What may set the robot in motion is pressed twice, slowly enough to be meant.

const EARLY_MS = 700; // a double-click is over by then
const SURE_MS = 4000;

/** Call work on the second press. An early one, as of a double-click or a key held down, starts the wait anew. */
export function twice(button, work) {
  const label = button.textContent;
  let timer = 0;
  let pressedAt = 0; // on the clock of the events: a page that was busy does not make a quick press a slow one
  const show = (state, text) => {
    button.dataset.sure = state;
    button.textContent = text;
  };
  const calm = () => {
    clearTimeout(timer);
    show("", label);
  };
  const ask = () => {
    show("ask", `${label}: press again`);
    timer = setTimeout(calm, SURE_MS);
  };
  button.addEventListener("click", (event) => {
    const early = event.timeStamp - pressedAt < EARLY_MS || event.detail > 1;
    if (button.dataset.sure === "ask" && !early) {
      calm();
      work();
      return;
    }
    pressedAt = event.timeStamp;
    clearTimeout(timer);
    show("wait", `${label} …`);
    timer = setTimeout(ask, EARLY_MS);
  });
}
