// One of the two tools as a worker (see batches.py): node shoot.mjs puppeteer|playwright PLAN
//
// PLAN is JSON: the browser's path and switches, the folder of the modules, and the viewport.

import {createRequire} from 'node:module';
import path from 'node:path';
import readline from 'node:readline';

const [tool, planText] = process.argv.slice(2);
const {executablePath, args, modules, viewport} = JSON.parse(planText);
const load = createRequire(path.join(modules, 'package.json'));

const puppeteer = {
  launch: () => load('puppeteer-core').launch({executablePath, args, headless: 'shell', defaultViewport: viewport}),
  open: browser => browser.createBrowserContext(),
  shot: {type: 'png', optimizeForSpeed: true},
};
const playwright = {
  launch: () => load('playwright-core').chromium.launch({executablePath, args}),
  open: browser => browser.newContext({viewport}),
  shot: {type: 'png'},
};
const {launch, open, shot} = {puppeteer, playwright}[tool];
const browser = await launch();

async function obey({url, count, at, picture}) {
  const latencies_ms = [];
  const ends_s = [];
  let left = count;
  let last;
  const work = async () => {
    while (left > 0) {
      left--;
      const began = performance.now();
      const context = await open(browser);
      const page = await context.newPage();
      await page.goto(url, {waitUntil: 'load'});
      last = await page.screenshot(shot);
      const end = performance.now();
      latencies_ms.push(end - began);
      ends_s.push(end / 1000);
      await context.close();
    }
  };
  await Promise.all(Array.from({length: at}, work));
  return {latencies_ms, ends_s, picture: picture ? Buffer.from(last).toString('base64') : null};
}

const answer = fields => process.stdout.write(JSON.stringify(fields) + '\n');
answer({ready: true});
for await (const line of readline.createInterface({input: process.stdin})) answer(await obey(JSON.parse(line)));
await browser.close();
