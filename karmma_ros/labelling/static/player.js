// Frames and audio of a recording at a time: scrubbing, stepping and playing.

const CHUNK_S = 8;  // audio that is fetched at once
const AHEAD_S = 3;
const MOST_STEPS = 4;  // that wait

export class Player {
  /** @param fetchFrame (camera, time, which) → {time, blob} or null; fetchAudio (start, stop) →
      ArrayBuffer or null. */
  constructor(image, blank, fetchFrame, fetchAudio, moved) {
    Object.assign(this, {image, blank, fetchFrame, fetchAudio, moved});
    this.length = 0;
    this.time = 0;
    this.camera = '';
    this.speed = 1;
    this.muted = false;
    this.playing = false;
    this.frameTime = null;
    this.sources = [];
    this.run = 0;
    this.steps = 0;
    this.stepped = Promise.resolve();
  }

  open(length, camera, hasAudio) {
    this.pause();
    Object.assign(this, {length, camera, hasAudio, time: 0, frameTime: null});
    this.generation = (this.generation || 0) + 1;
    this.show();
  }

  seek(time) {
    const playing = this.playing;
    if (playing) this.pause();
    this.time = Math.min(Math.max(0, time), this.length);
    this.show();
    this.moved();
    if (playing) this.play();
  }

  /** Show the frame of the current time; while one is fetched, only the newest wish counts. */
  async show(which = 'at') {
    if (this.busy) { this.wanted = true; return; }
    this.busy = true;
    do {
      this.wanted = false;
      const generation = this.generation;
      const frame = this.camera ? await this.fetchFrame(this.camera, this.time, which) : null;
      if (generation !== this.generation) { this.wanted = true; continue; }
      this.put(frame);
    } while (this.wanted);
    this.busy = false;
  }

  put(frame) {
    this.frameTime = frame ? frame.time : null;
    this.blank.hidden = Boolean(frame && frame.blob.size);
    this.image.hidden = !this.blank.hidden;
    if (!this.blank.hidden) return;
    const old = this.image.src;
    this.image.src = URL.createObjectURL(frame.blob);
    if (old.startsWith('blob:')) URL.revokeObjectURL(old);
  }

  /** Go to the next or the previous frame; of keys that repeat faster than frames come, a few. */
  step(which) {
    this.pause();
    if (this.steps >= MOST_STEPS) return;
    this.steps++;
    this.stepped = this.stepped.then(() => this.stepOnce(which)).finally(() => { this.steps--; });
  }

  async stepOnce(which) {
    const from = which === 'previous' && this.frameTime !== null && this.frameTime <= this.time
      ? this.frameTime : this.time;
    const frame = this.camera ? await this.fetchFrame(this.camera, from, which) : null;
    if (frame) {
      this.put(frame);
      this.time = Math.min(Math.max(0, frame.time), this.length);
      this.moved();
    } else {
      this.seek(this.time + (which === 'next' ? 0.1 : -0.1));
    }
  }

  toggle() { if (this.playing) this.pause(); else this.play(); }

  play() {
    if (this.playing) return;
    if (this.time >= this.length - 0.05) this.time = 0;
    this.playing = true;
    const run = ++this.run, from = this.time, started = performance.now();
    const tick = () => {
      if (run !== this.run || !this.playing) return;
      this.time = Math.min(this.length, from + (performance.now() - started) / 1000 * this.speed);
      this.show();
      this.moved();
      if (this.time >= this.length) this.pause();
      else requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    if (this.hasAudio && !this.muted) this.playAudio(run, from);
    this.moved();
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.run++;
    for (const source of this.sources) { try { source.stop(); } catch { /* not started */ } }
    this.sources = [];
    this.moved();
  }

  setSpeed(speed) {
    const playing = this.playing;
    this.pause();
    this.speed = speed;
    if (playing) this.play();
  }

  async playAudio(run, from) {
    this.context = this.context || new AudioContext();
    this.context.resume();
    for (let start = from; start < this.length && run === this.run; start += CHUNK_S) {
      const data = await this.fetchAudio(start, Math.min(this.length, start + CHUNK_S));
      if (run !== this.run || !data) return;
      const buffer = await this.context.decodeAudioData(data);
      if (run !== this.run) return;
      const late = this.time - start, source = this.context.createBufferSource();
      source.buffer = buffer;
      source.playbackRate.value = this.speed;
      source.connect(this.context.destination);
      source.start(this.context.currentTime + Math.max(0, -late / this.speed), Math.max(0, late));
      this.sources.push(source);
      while (run === this.run && this.time < start + CHUNK_S - AHEAD_S * this.speed)
        await new Promise(done => setTimeout(done, 100));
    }
  }
}
