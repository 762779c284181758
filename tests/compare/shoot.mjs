// Takes the pictures of every case with one of the two tools: node shoot.mjs puppeteer|playwright PLAN.json
//
// The plan holds the browser's path and switches, the folder for the pictures and the cases (see cases.py). For each
// case NAME.TOOL is written, or NAME.TOOL.error with the reason. One browser for all cases, one context for each.

import fs from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';

const [tool, planPath] = process.argv.slice(2);
const plan = JSON.parse(fs.readFileSync(planPath, 'utf8'));
const load = createRequire(path.join(plan.modules, 'package.json'));

const puppeteer = {
  async launch() {
    const {executablePath, args} = plan;
    return load('puppeteer-core').launch({executablePath, args, headless: 'shell'});
  },
  async take(browser, item) {
    const context = await browser.createBrowserContext();
    try {
      const page = await context.newPage();
      await page.setViewport({
        width: item.viewport.width,
        height: item.viewport.height,
        deviceScaleFactor: item.viewport.device_scale_factor,
        isMobile: item.viewport.mobile,
        hasTouch: item.viewport.touch,
      });
      const features = [];
      if (item.color_scheme) features.push({name: 'prefers-color-scheme', value: item.color_scheme});
      if (item.reduced_motion) features.push({name: 'prefers-reduced-motion', value: 'reduce'});
      if (features.length) await page.emulateMediaFeatures(features);
      if (item.media) await page.emulateMediaType(item.media);
      await page.goto(item.url, {waitUntil: 'load'});
      await page.evaluate(item.script);
      const options = {type: item.format, omitBackground: item.transparent};
      if (item.format !== 'png') options.quality = item.quality;
      if (item.selector) return await (await page.$(item.selector)).screenshot(options);
      if (item.full_page) options.fullPage = true;
      if (item.clip) options.clip = item.clip;
      return await page.screenshot(options);
    } finally {
      await context.close();
    }
  },
};

const playwright = {
  async launch() {
    const {executablePath, args} = plan;
    return load('playwright-core').chromium.launch({executablePath, args});
  },
  async take(browser, item) {
    const context = await browser.newContext({
      viewport: {width: item.viewport.width, height: item.viewport.height},
      deviceScaleFactor: item.viewport.device_scale_factor,
      isMobile: item.viewport.mobile,
      hasTouch: item.viewport.touch,
      colorScheme: item.color_scheme,
      reducedMotion: item.reduced_motion ? 'reduce' : undefined,
    });
    try {
      const page = await context.newPage();
      if (item.media) await page.emulateMedia({media: item.media});
      await page.goto(item.url, {waitUntil: 'load'});
      await page.evaluate(item.script);
      const options = {type: item.format, omitBackground: item.transparent, timeout: 10_000};
      if (item.disable_animations) options.animations = 'disabled';
      if (item.format !== 'png') options.quality = item.quality;
      if (item.selector) return await page.locator(item.selector).first().screenshot(options);
      if (item.full_page) options.fullPage = true;
      if (item.clip) {
        options.clip = item.clip;
        // Otherwise its clip is relative to the viewport and cut at its edges.
        options.fullPage = true;
      }
      return await page.screenshot(options);
    } finally {
      await context.close();
    }
  },
};

const {launch, take} = {puppeteer, playwright}[tool];
const browser = await launch();
for (const item of plan.cases) {
  const file = path.join(plan.folder, `${item.name}.${tool}`);
  try {
    fs.writeFileSync(file, await take(browser, item));
  } catch (error) {
    fs.writeFileSync(`${file}.error`, String(error.message).split('\n')[0]);
  }
}
await browser.close();
