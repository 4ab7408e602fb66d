import type {DataType} from '@tensorflow/tfjs';
import type {CApi, Pointer} from '../native/c-api.js';
import {ATTR, dtypeCode} from '../native/dtype.js';

/** One attribute of an operation, in tfjs-node's form; a list value makes a list attribute. */
export interface Attribute {
  readonly name: string;
  readonly type: number;
  readonly value: boolean | number | string | object;
}

/** A dtype attribute, from a tfjs dtype or a TensorFlow code. */
export function typeAttr(name: string, dtype: DataType | number): Attribute {
  return {name, type: ATTR.TYPE, value: typeof dtype === 'number' ? dtype : dtypeCode(dtype)};
}

/** An integer attribute. */
export function intAttr(name: string, value: number): Attribute {
  return {name, type: ATTR.INT, value};
}

/** A boolean attribute. */
export function boolAttr(name: string, value: boolean): Attribute {
  return {name, type: ATTR.BOOL, value};
}

/** A string attribute. */
export function stringAttr(name: string, value: string): Attribute {
  return {name, type: ATTR.STRING, value};
}

/** A shape attribute. */
export function shapeAttr(name: string, value: readonly number[]): Attribute {
  return {name, type: ATTR.SHAPE, value};
}

/** Sets an attribute of an operation about to run. */
export function setEagerAttribute(c: CApi, op: Pointer, attribute: Attribute, status: Pointer): void {
  const {name, type, value} = attribute;
  if (type === ATTR.TYPE && Array.isArray(value)) return c.TFE_OpSetAttrTypeList(op, name, value, value.length);
  if (type === ATTR.TYPE) return c.TFE_OpSetAttrType(op, name, Number(value));
  if (type === ATTR.INT && Array.isArray(value)) {
    return c.TFE_OpSetAttrIntList(op, name, value.map(BigInt), value.length);
  }
  if (type === ATTR.INT) return c.TFE_OpSetAttrInt(op, name, Number(value));
  if (type === ATTR.FLOAT) return c.TFE_OpSetAttrFloat(op, name, Number(value));
  if (type === ATTR.BOOL) return c.TFE_OpSetAttrBool(op, name, value ? 1 : 0);
  if (type === ATTR.STRING) return c.TFE_OpSetAttrString(op, name, String(value), Buffer.byteLength(String(value)));
  const dims = shapeDims(attribute);
  c.TFE_OpSetAttrShape(op, name, dims, dims.length, status);
}

/** Sets an attribute of a graph node under construction. */
export function setGraphAttribute(c: CApi, node: Pointer, attribute: Attribute): void {
  const {name, type, value} = attribute;
  if (type === ATTR.TYPE && Array.isArray(value)) return c.TF_SetAttrTypeList(node, name, value, value.length);
  if (type === ATTR.TYPE) return c.TF_SetAttrType(node, name, Number(value));
  if (type === ATTR.INT && Array.isArray(value)) {
    return c.TF_SetAttrIntList(node, name, value.map(BigInt), value.length);
  }
  if (type === ATTR.INT) return c.TF_SetAttrInt(node, name, Number(value));
  if (type === ATTR.FLOAT) return c.TF_SetAttrFloat(node, name, Number(value));
  if (type === ATTR.BOOL) return c.TF_SetAttrBool(node, name, value ? 1 : 0);
  if (type === ATTR.STRING) return c.TF_SetAttrString(node, name, String(value), Buffer.byteLength(String(value)));
  const dims = shapeDims(attribute);
  c.TF_SetAttrShape(node, name, dims, dims.length);
}

function shapeDims({name, type, value}: Attribute): bigint[] {
  if (type !== ATTR.SHAPE || !Array.isArray(value)) throw new Error(`attribute ${name} has unknown type ${type}`);
  return value.map((dim) => BigInt(Number(dim)));
}
