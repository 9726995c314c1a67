// SPDX-License-Identifier: Apache-2.0
// Puts the parts together: what is heard is shown, what is pressed is sent.

import { act, listen, setKey } from "./link.js";
import { disableOperate, noteStop, showOperate, wireOperate } from "./operate.js";
import { byId, showSummary, pictures, render } from "./panels.js";
import { slots, wireSlots } from "./slots.js";
import { placeTerms } from "./terms.js";
import { twice } from "./twice.js";

const SAID_MS = 8000;
const LOST = "Use the emergency stop if the robot must stop now. This page reconnects by itself.";

let heardAt = 0; // when the newest state came; 0: none yet
let connected = false;
let stopped = false;
let hasRobot = false;
let onlyStop = false; // nothing else acts: others can reach this server, and there is no key
let resetCaller = ""; // whose guard the button resets; empty: none is tripped
let saidTimer = 0;

const link = listen({
  hear(name, document) {
    if (name === "pictures") return pictures(document);
    heardAt = Date.now();
    if (!connected) reconnected();
    hasRobot = document.robot !== null;
    stopped = document.robot?.stopped ?? false;
    onlyStop = document.only_stop;
    resetCaller = document.guard?.reset_caller ?? "";
    render(document);
    showOperate(document, !onlyStop);
    slots(document.policies, onlyStop);
    showActs();
  },
  lost(reason) {
    disconnected("NO CONNECTION", reason);
  },
  refused() {
    disconnected("KEY NEEDED", "This robot is shown to holders of its API key.", "wait", "Type the key.");
    byId("panels").hidden = byId("what").hidden = true;
    askForKey();
  },
});

function reconnected() {
  connected = true;
  byId("panels").hidden = byId("what").hidden = false;
  byId("panels").classList.remove("stale");
  byId("key-form").hidden = true;
}

/** What is still shown is old: it must not look alive. */
function disconnected(word, reason, level = "lost", todo = LOST) {
  connected = false;
  byId("panels").classList.add("stale");
  disableOperate();
  const age = heardAt ? `Last state ${Math.round((Date.now() - heardAt) / 1000)} s ago: what you see is old.` : "No answer from the robot so far.";
  showSummary({ level, word, sentence: reason || age, todo });
  document.title = word;
  showActs();
}

/** Stop can always be tried, unless it is known that there is no robot; resume only after a stop. */
function showActs() {
  byId("stop").hidden = connected && !hasRobot;
  byId("resume").hidden = !(connected && hasRobot && stopped) || onlyStop;
  byId("reset-guard").hidden = !(connected && resetCaller) || onlyStop;
  byId("only-stop").hidden = !(connected && onlyStop);
}

function askForKey() {
  byId("key-form").hidden = false;
  byId("key").focus();
}

/** Send a request that acts, and show its result. Resolves to whether it was done. */
async function send(path, body, name, done) {
  say(`${name} …`, "wait");
  const answer = await act(path, body);
  if (answer.status === 401) askForKey();
  if (answer.ok) say(answer.text ? `${done}: ${answer.text}` : done, "good");
  else {
    const why = answer.status === 401 ? "the API key is missing or wrong" : answer.text || `the server answers ${answer.status}`;
    say(`${name} DID NOT HAPPEN: ${why}`, "bad");
  }
  return answer.ok;
}

function say(text, level) {
  const element = byId("notice");
  clearTimeout(saidTimer);
  element.textContent = text;
  element.dataset.level = level;
  element.hidden = false;
  if (level === "good") saidTimer = setTimeout(() => (element.hidden = true), SAID_MS);
}

function changePolicies(body) {
  return send("/policies", body, "CHANGE", "Changed");
}

byId("stop").addEventListener("click", () => {
  noteStop();
  send("/stop", undefined, "STOP", "Stopped");
});
twice(byId("resume"), () => send("/resume", undefined, "RESUME", "Resumed"));
twice(byId("reset-guard"), () => send("/guard/reset", { caller: resetCaller }, "RESET", `The guard was reset for ${resetCaller}`));
wireSlots(changePolicies, twice);
wireOperate({ act, send, say, twice });
placeTerms();
new ResizeObserver(([entry]) => {
  document.documentElement.style.setProperty("--header", `${Math.ceil(entry.borderBoxSize[0].blockSize)}px`);
}).observe(byId("top"));
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value);
  byId("key").value = "";
  byId("key-form").hidden = true;
  link.wake();
});
setInterval(() => {
  if (!connected && heardAt && byId("word").textContent === "NO CONNECTION") disconnected("NO CONNECTION", "");
}, 1000);
