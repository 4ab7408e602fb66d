import type {CApi, Pointer} from '../native/c-api.js';
import {ATTR, dtypeCode} from '../native/dtype.js';
import type {DataType} from '../tfjs.js';

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

/** The setters of one of TensorFlow's two ways to build an operation. */
interface Setters {
  readonly type: (name: string, value: number) => void;
  readonly typeList: (name: string, values: readonly number[]) => void;
  readonly int: (name: string, value: number) => void;
  readonly intList: (name: string, values: readonly bigint[]) => void;
  readonly float: (name: string, value: number) => void;
  readonly bool: (name: string, value: number) => void;
  readonly string: (name: string, value: string) => void;
  readonly shape: (name: string, dims: readonly bigint[]) => void;
}

/** Sets an attribute of an operation about to run. */
export function setEagerAttribute(c: CApi, op: Pointer, attribute: Attribute, status: Pointer): void {
  setAttribute(attribute, {
    type: (name, value) => c.TFE_OpSetAttrType(op, name, value),
    typeList: (name, values) => c.TFE_OpSetAttrTypeList(op, name, values, values.length),
    int: (name, value) => c.TFE_OpSetAttrInt(op, name, value),
    intList: (name, values) => c.TFE_OpSetAttrIntList(op, name, values, values.length),
    float: (name, value) => c.TFE_OpSetAttrFloat(op, name, value),
    bool: (name, value) => c.TFE_OpSetAttrBool(op, name, value),
    string: (name, value) => c.TFE_OpSetAttrString(op, name, value, Buffer.byteLength(value)),
    shape: (name, dims) => c.TFE_OpSetAttrShape(op, name, dims, dims.length, status),
  });
}

/** Sets an attribute of a graph node under construction. */
export function setGraphAttribute(c: CApi, node: Pointer, attribute: Attribute): void {
  setAttribute(attribute, {
    type: (name, value) => c.TF_SetAttrType(node, name, value),
    typeList: (name, values) => c.TF_SetAttrTypeList(node, name, values, values.length),
    int: (name, value) => c.TF_SetAttrInt(node, name, value),
    intList: (name, values) => c.TF_SetAttrIntList(node, name, values, values.length),
    float: (name, value) => c.TF_SetAttrFloat(node, name, value),
    bool: (name, value) => c.TF_SetAttrBool(node, name, value),
    string: (name, value) => c.TF_SetAttrString(node, name, value, Buffer.byteLength(value)),
    shape: (name, dims) => c.TF_SetAttrShape(node, name, dims, dims.length),
  });
}

function setAttribute({name, type, value}: Attribute, set: Setters): void {
  const list = Array.isArray(value) ? value.map(Number) : null;
  if (type === ATTR.TYPE && list) set.typeList(name, list);
  else if (type === ATTR.TYPE) set.type(name, Number(value));
  else if (type === ATTR.INT && list) set.intList(name, list.map(BigInt));
  else if (type === ATTR.INT) set.int(name, Number(value));
  else if (type === ATTR.SHAPE && list) set.shape(name, list.map(BigInt));
  else if (type === ATTR.FLOAT) set.float(name, Number(value));
  else if (type === ATTR.BOOL) set.bool(name, value === true ? 1 : 0);
  else if (type === ATTR.STRING && typeof value === 'string') set.string(name, value);
  else throw new Error(`attribute ${name} of type ${type} has a value of another kind`);
}
