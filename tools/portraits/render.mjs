// Renders the portraits of sf.data.portraits: node render.mjs OUT.json COUNT_PER_CLASS; called by make.py.
// Every portrait is a function of its seed ("glasses-17"); the classes are drawn so that an image has at most one of the three.
import { writeFileSync } from "node:fs";
import { createAvatar } from "@dicebear/core";
import * as pixelArt from "@dicebear/pixel-art";
import { Resvg } from "@resvg/resvg-js";

const CLASSES = ["plain", "glasses", "hat", "beard"];
const SIDE = 16;
const BACKGROUNDS = ["b6e3f4", "c0aede", "ffd5dc", "ffdfbf", "d3efc8"];

function render(seed, kind) {
    const options = { seed, accessoriesProbability: 0, backgroundColor: BACKGROUNDS };
    for (const name of CLASSES.slice(1)) options[`${name}Probability`] = name === kind ? 100 : 0;
    const avatar = createAvatar(pixelArt, options);
    const image = new Resvg(avatar.toString(), { fitTo: { mode: "width", value: 2 * SIDE } }).render();
    const wide = image.pixels; // RGBA
    const pixels = [];
    for (let row = 0; row < SIDE; row++)
        for (let column = 0; column < SIDE; column++) {
            const first = 4 * (2 * row * 2 * SIDE + 2 * column);
            for (const other of [first + 4, first + 4 * 2 * SIDE, first + 4 * 2 * SIDE + 4])
                for (let c = 0; c < 4; c++)
                    if (wide[other + c] !== wide[first + c]) throw new Error(`${seed}: not a doubled 16×16 image`);
            if (wide[first + 3] !== 255) throw new Error(`${seed}: transparent`);
            pixels.push(wide[first], wide[first + 1], wide[first + 2]);
        }
    return { pixels, extra: avatar.toJson().extra };
}

const [out, count] = [process.argv[2], Number(process.argv[3])];
const seen = new Set();
const portraits = [];
CLASSES.forEach((kind, label) => {
    for (let i = 0, kept = 0; kept < count; i++) {
        const { pixels, extra } = render(`${kind}-${i}`, kind);
        const key = pixels.join(",");
        if (seen.has(key)) continue;
        seen.add(key);
        kept++;
        const text = (value) => String(value ?? "").replace("#", "");
        portraits.push({
            label, pixels: Buffer.from(pixels).toString("base64"),
            mouth: text(extra.mouth), hair: text(extra.hair), skin: text(extra.skinColor), hairColor: text(extra.hairColor),
        });
    }
});
writeFileSync(out, JSON.stringify(portraits));
