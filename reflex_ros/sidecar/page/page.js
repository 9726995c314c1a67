// SPDX-License-Identifier: Apache-2.0
// Puts the parts together: what is heard is shown, what is pressed is sent.

import { act, listen, setKey } from "./link.js";
import { byId, showSummary, pictures, render } from "./panels.js";
import { slots, wireSlots } from "./slots.js";
import { twice } from "./twice.js";

const SAID_MS = 8000;

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
    slots(document.policies, onlyStop);
    showActs();
  },
  lost(reason) {
    disconnected("NO CONNECTION", reason);
  },
  refused() {
    disconnected("KEY NEEDED", "Type the API key to look at this robot.");
    byId("panels").hidden = true;
    askForKey();
  },
});

function reconnected() {
  connected = true;
  byId("panels").hidden = false;
  byId("panels").classList.remove("stale");
  byId("key-form").hidden = true;
}

/** What is still shown is old: it must not look alive. */
function disconnected(word, reason) {
  connected = false;
  byId("panels").classList.add("stale");
  const age = heardAt ? `Last state ${Math.round((Date.now() - heardAt) / 1000)} s ago: what you see is old.` : "Trying to reach the robot.";
  showSummary({ level: "lost", word, sentence: reason || age });
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

/** Send a request that acts, and say what became of it. */
async function send(path, body, name, done) {
  say(`${name} …`, "wait");
  const answer = await act(path, body);
  if (answer.status === 401) askForKey();
  if (answer.ok) return say(answer.text ? `${done}: ${answer.text}` : done, "good");
  const why = answer.status === 401 ? "the API key is missing or wrong" : answer.text || `the server answers ${answer.status}`;
  return say(`${name} DID NOT HAPPEN: ${why}`, "bad");
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

byId("stop").addEventListener("click", () => send("/stop", undefined, "STOP", "Stopped"));
twice(byId("resume"), () => send("/resume", undefined, "RESUME", "Resumed"));
twice(byId("reset-guard"), () => send("/guard/reset", { caller: resetCaller }, "RESET", `The guard was reset for ${resetCaller}`));
wireSlots(changePolicies, twice);
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
